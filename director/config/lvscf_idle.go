package config

// idle is a key of lvs.cf that is read and does nothing.
type idle struct {
	key, why string
	nothing  []string // values that ask for nothing and so are not worth a warning
}

var globalIdle = []idle{
	{"serial_no", "the directors compare a digest of the whole file instead", nil},
	{"heartbeat", "pulse never looked at it either; backup_active = 1 turns the heartbeat on", nil},
	{"nat_router", "it is for network = nat; a tunnel has no router of its own", nil},
	{"nat_nmask", "it is for network = nat; a tunnel has no router of its own", nil},
	{"debug_level", "pulse never looked at it either", nil},
	{"monitor_links", "links are not watched yet", []string{"0"}},
	{"rsh_command", "no load is fetched from the real servers", nil},
	{"primary_shared", "it is for service = fos", nil},
	{"backup_shared", "it is for service = fos", nil},
	{"reservation_conflict_action", "it is for service = fos", nil},
	{"tcp_timeout", "the kernel's timeouts stay as they are; ipvsadm --set changes them", []string{"0"}},
	{"tcpfin_timeout", "the kernel's timeouts stay as they are; ipvsadm --set changes them", []string{"0"}},
	{"udp_timeout", "the kernel's timeouts stay as they are; ipvsadm --set changes them", []string{"0"}},
	{"active_cmd", "no command is run when a director becomes active", nil},
	{"inactive_cmd", "no command is run when a director becomes standby", nil},
	{"hard_shutdown", "checks are not processes of their own, so none can take the rest down", nil},
	{"ipvsadm", "the kernel's table is written without ipvsadm", nil},
	{"sync", "pulse never looked at it either", []string{"0"}},
}

var virtualIdle = []idle{
	{"vip_nmask", "the VIP is put on its device as /32", []string{"255.255.255.255"}},
	{"load_monitor", "no load is fetched from the real servers; lvs-agent can set its weight", []string{"none"}},
	{"sorry_server", "when every server is down none stands in yet", nil},
	{"send_program", "no program is run; the check is a connect to the port instead", nil},
	{"client_monitor", "checks run inside lvs-director", nil},
	{"master", "pulse never looked at it either", nil},
	{"dirs", "pulse never looked at it either", nil},
	{"start_cmd", "it is for failover blocks", nil},
	{"stop_cmd", "it is for failover blocks", nil},
}
