package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Foo over UDP, of which GUE is a kind: commands, attributes and kinds of linux/fou.h.
const (
	fouAdd, fouDel, fouGet = 1, 2, 3

	fouPort, fouFamily, fouKind = 1, 2, 4

	kindGUE = 2
)

var errNoFOU = errors.New("kernel module fou (CONFIG_NET_FOU) is missing, and nothing loads it by itself: modprobe fou, and name it in /etc/modules-load.d")

// ports returns none where the kernel has no FOU.
func (rtnetlink) ports() (map[port]bool, error) {
	msgs, err := fou(fouGet, unix.NLM_F_DUMP, nil)
	for range 10 {
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		msgs, err = fou(fouGet, unix.NLM_F_DUMP, nil)
	}
	if errors.Is(err, errNoFOU) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[port]bool{}
	for _, m := range msgs {
		p, gue, err := parsePort(m)
		if err != nil {
			return nil, err
		}
		all[p] = gue
	}
	return all, nil
}

// parsePort reads a FOU message from its generic header on.
func parsePort(m []byte) (p port, gue bool, err error) {
	if len(m) < nl.SizeofGenlmsg {
		return port{}, false, fmt.Errorf("FOU message of %d bytes", len(m))
	}
	attrs, err := attributes(m[nl.SizeofGenlmsg:])
	if err != nil {
		return port{}, false, fmt.Errorf("FOU message: %w", err)
	}
	for _, attr := range attrs {
		switch v := attr.Value; {
		case attr.Attr.Type == fouPort && len(v) == 2:
			p.Number = binary.BigEndian.Uint16(v)
		case attr.Attr.Type == fouFamily && len(v) == 1:
			p.IPv6 = v[0] == unix.AF_INET6
		case attr.Attr.Type == fouKind && len(v) == 1:
			gue = v[0] == kindGUE
		}
	}
	if p.Number == 0 {
		return port{}, false, errors.New("FOU message without a port")
	}
	return p, gue, nil
}

func (rtnetlink) openPort(p port) error {
	_, err := fou(fouAdd, unix.NLM_F_ACK, append(p.attributes(), nl.NewRtAttr(fouKind, []byte{kindGUE})))
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: another program listens on that port", err)
	}
	return err
}

func (rtnetlink) closePort(p port) error {
	_, err := fou(fouDel, unix.NLM_F_ACK, p.attributes())
	return err
}

func (p port) attributes() []*nl.RtAttr {
	family := []byte{unix.AF_INET}
	if p.IPv6 {
		family[0] = unix.AF_INET6
	}
	return []*nl.RtAttr{nl.NewRtAttr(fouPort, binary.BigEndian.AppendUint16(nil, p.Number)), nl.NewRtAttr(fouFamily, family)}
}

// fou asks for the family's number every time: it changes when the module is loaded again.
func fou(command uint8, flags int, attrs []*nl.RtAttr) ([][]byte, error) {
	family, err := netlink.GenlFamilyGet("fou")
	if errors.Is(err, unix.ENOENT) {
		return nil, errNoFOU
	}
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), flags)
	req.AddData(&nl.Genlmsg{Command: command, Version: 1})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}
