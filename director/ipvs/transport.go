package ipvs

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// transport carries commands of the IPVS family to a kernel. Attributes go out and come back without headers.
type transport interface {
	// do sends a command and waits until the kernel has taken it, or refused it with an errno.
	do(cmd uint8, attrs []byte) error
	// dump sends a GET command and returns every message of the answer, with nl.ErrDumpInterrupted where the kernel
	// says that they may not fit together.
	dump(cmd uint8, attrs []byte) ([][]byte, error)
	close()
}

// answerTimeout bounds the wait for an answer after the kernel has taken the request. It works while it takes it, however
// long that lasts, so that the answer is there at once, or never: a request that the kernel calls interrupted gets none
// (netlink_rcv_skb), and then the error is EAGAIN.
const answerTimeout = 1 // second

// kernelTransport is the transport to the running kernel, in the network namespace it was opened in.
type kernelTransport struct {
	socket *nl.SocketHandle
	family atomic.Uint32 // changes when the module is loaded anew
}

var _ transport = (*kernelTransport)(nil)

func openKernel() (*kernelTransport, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open a generic netlink socket: %w", err)
	}
	t := &kernelTransport{socket: &nl.SocketHandle{Socket: s}}
	timeout := &unix.Timeval{Sec: answerTimeout}
	if err := errors.Join(s.SetSendTimeout(timeout), s.SetReceiveTimeout(timeout), t.lookup()); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// lookup learns the number of the family; the kernel loads ip_vs for the question where it can.
func (t *kernelTransport) lookup() error {
	f, err := netlink.GenlFamilyGet(familyName)
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrNoModule
	case err != nil:
		return fmt.Errorf("look up the generic netlink family %s: %w", familyName, err)
	}
	t.family.Store(uint32(f.ID))
	return nil
}

func (t *kernelTransport) execute(cmd uint8, flags int, attrs []byte) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(t.family.Load()), flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: t.socket}
	req.AddData(&nl.Genlmsg{Command: cmd, Version: familyVersion})
	req.AddRawData(attrs)
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

func (t *kernelTransport) do(cmd uint8, attrs []byte) error {
	_, err := t.execute(cmd, unix.NLM_F_ACK, attrs)
	return err
}

func (t *kernelTransport) dump(cmd uint8, attrs []byte) ([][]byte, error) {
	msgs, err := t.execute(cmd, unix.NLM_F_DUMP, attrs)
	if errors.Is(err, unix.ENOENT) { // never an answer of IPVS to a dump: the family has gone, and may be back
		if err := t.lookup(); err != nil {
			return nil, err
		}
		msgs, err = t.execute(cmd, unix.NLM_F_DUMP, attrs)
	}
	for i, m := range msgs {
		msgs[i] = m[min(nl.SizeofGenlmsg, len(m)):]
	}
	return msgs, err
}

func (t *kernelTransport) close() { t.socket.Close() }
