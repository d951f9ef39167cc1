package ipvs

import (
	"encoding/binary"
	"slices"
	"time"
)

// The messages of the kernel's sync daemons in version 1 of their protocol, as net/netfilter/ipvs/ip_vs_sync.c has them:
// struct ip_vs_sync_mesg, and in it entries, each a struct ip_vs_sync_v4 or ip_vs_sync_v6. All numbers are in network
// order. An entry is a multiple of four bytes, so that none needs padding; options, which follow an entry, are those of
// sequence numbers (NAT) and persistence engines, and have no place here.
const (
	syncVersion     = 1
	syncHeaderSize  = 8
	syncSizeIPv4    = 36
	syncSizeIPv6    = 72
	syncTypeIPv6    = 1   // STYPE_F_INET6
	syncMostEntries = 255 // nr_conns is a byte
)

// Flags of a connection (include/uapi/linux/ip_vs.h), of those that a backup takes, IP_VS_CONN_F_BACKUP_MASK. The lowest
// three bits are the Method.
const (
	connNoOutput = 0x0080 // the answers do not come through the director
	connInactive = 0x0100 // counts as inactive at its real server
	connTemplate = 0x1000
)

// syncEntry is a flow as it is told to a backup.
type syncEntry struct {
	Flow
	method  Method
	fwmark  uint32        // of the virtual service, for a backup finds it by that; 0 is by address
	timeout time.Duration // whole seconds above 0; what the backup waits for a packet, now and, for a template, ever after
}

// tellable tells whether an entry can say all that the backup has to know of the flow. What cannot be told is left to the
// kernel's own master: a template of a fwmark service or of a persistence engine, a protocol other than TCP and UDP, a
// flow whose client port is still open (FTP), one that has not even its first state yet.
func (f Flow) tellable() bool {
	switch {
	case f.Protocol != TCP && f.Protocol != UDP, f.PEName != "":
		return false
	case familyOf(f.VIP.Addr()) != familyOf(f.Destination.Addr()): // the kernel refuses it beside a sync daemon
		return false
	case f.Template:
		return true
	}
	return f.Client.Port() != 0 && slices.Contains(f.states(), f.State) && f.State != tcpStates[0]
}

// states are the names of the states that the flow may have, by their numbers.
func (f Flow) states() []string {
	switch {
	case f.Template:
		return templateStates
	case f.Protocol == TCP:
		return tcpStates
	}
	return udpStates
}

// flags are the kernel's flags of the connection, with one exception. It counts a TCP flow as active only when it is
// established; here one that is opening is active too. For a backup that has an older flow of the same client port, to
// another real server, replaces it by an active one and ignores an inactive (ip_vs_proc_conn). The count at the real
// server follows the flag, and is right again with the flow's next state.
func (e syncEntry) flags() uint32 {
	flags := uint32(e.method) | connNoOutput
	switch {
	case e.Template:
		return flags | connTemplate | connInactive
	case e.Protocol == TCP && slices.Contains([]string{"ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"}, e.State):
		return flags
	}
	return flags | connInactive
}

// syncMessage is a message that is being filled.
type syncMessage struct {
	b       []byte
	most    int // bytes
	entries int
}

// newSyncMessage makes a message of at most that many bytes, at least one entry of IPv6.
func newSyncMessage(id, most int) *syncMessage {
	m := &syncMessage{b: make([]byte, syncHeaderSize, most), most: most}
	m.b[1], m.b[5] = byte(id), syncVersion // the first byte is 0 for version 0 to see no entries
	return m
}

// fits tells whether the message has room for the entry.
func (m *syncMessage) fits(e syncEntry) bool {
	return m.entries < syncMostEntries && len(m.b)+e.size() <= m.most
}

func (e syncEntry) size() int {
	if e.VIP.Addr().Is4() {
		return syncSizeIPv4
	}
	return syncSizeIPv6
}

// add appends an entry.
func (m *syncMessage) add(e syncEntry) {
	kind := byte(0)
	if e.VIP.Addr().Is6() {
		kind = syncTypeIPv6
	}
	b := append(m.b, kind, byte(e.Protocol))
	b = binary.BigEndian.AppendUint16(b, uint16(e.size())) // and version 0 of the entry, in the upper four bits
	b = binary.BigEndian.AppendUint32(b, e.flags())
	b = binary.BigEndian.AppendUint16(b, uint16(slices.Index(e.states(), e.State)))
	b = binary.BigEndian.AppendUint16(b, e.Client.Port())
	b = binary.BigEndian.AppendUint16(b, e.VIP.Port())
	b = binary.BigEndian.AppendUint16(b, e.Destination.Port())
	b = binary.BigEndian.AppendUint32(b, e.fwmark)
	b = binary.BigEndian.AppendUint32(b, uint32(e.timeout/time.Second))
	b = append(b, e.Client.Addr().AsSlice()...)
	b = append(b, e.VIP.Addr().AsSlice()...)
	m.b = append(b, e.Destination.Addr().AsSlice()...)
	m.entries++
}

// datagram is the message as it goes out; it is valid until the next reset.
func (m *syncMessage) datagram() []byte {
	binary.BigEndian.PutUint16(m.b[2:], uint16(len(m.b)))
	m.b[4] = byte(m.entries)
	return m.b
}

// reset empties the message.
func (m *syncMessage) reset() { m.b, m.entries = m.b[:syncHeaderSize], 0 }
