package ipvs

// Setting is a kernel setting: its name below /proc/sys with dots for slashes, its value as the file shows it, and the
// reason for the value.
type Setting struct{ Key, Value, Why string }

// SyncSettings are the settings with which an established flow is known to the standby within a second and outlives
// the move of its VIP; the same on both directors, in the network namespace of IPVS, before the first sync daemon
// starts. They exist once ip_vs is loaded. The master's MaxLen is PromptMaxLen with them, for no setting shortens the two
// to three seconds that an entry waits in a message with room left.
//
// Measured on Linux 6.1, between a client's connect and its flow in the standby's table, for a flow that sends a small
// packet every 250 ms and one that sends nothing:
//
//	                                                  250 ms    nothing
//	the kernel's defaults                             3.1 s     never
//	these settings                                    2.0 s     2.0 s
//	these settings and PromptMaxLen                   0.5 s     2.0 s, or with the next entry of another flow
//
// The kernel tests hold these numbers. A flow that was not known ends with a reset.
func SyncSettings() []Setting {
	return []Setting{
		{"net.ipv4.vs.sync_threshold", "0 1",
			"every packet of a flow may tell the standby of it, from the first; the default waits for the third, which an idle flow never sends, and repeats with every 50th (ip_vs_sync.c)"},
		{"net.ipv4.vs.sync_refresh_period", "4",
			"a flow is told again every 4 seconds, not with every packet; a standby that starts late learns every flow that sends within that time (ip_vs_sync.c)"},
		{"net.ipv4.vs.sync_retries", "1",
			"a flow is told once more after an eighth of the refresh period, half a second: it makes up for a lost message, and sends the entry before (ip_vs_sync.c)"},
		{"net.ipv4.vs.sync_ports", "1",
			"a second thread has a message of its own to fill, so that entries wait longer; both directors must have as many (ip_vs_sync.c)"},
	}
}
