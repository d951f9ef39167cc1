package tunnel

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of linux/if_tunnel.h.
const (
	getTunnel    = unix.SIOCDEVPRIVATE + 0
	changeTunnel = unix.SIOCDEVPRIVATE + 3
)

// tunnelParameters is struct ip6_tnl_parm2 of linux/ip6_tunnel.h: what is not named here is given back as it was got.
type tunnelParameters struct {
	_        [unix.IFNAMSIZ + 4]byte
	protocol uint8
	_        [55]byte
}

// tunnelRequest is struct ifreq of netdevice(7) for these requests.
type tunnelRequest struct {
	name       [unix.IFNAMSIZ]byte
	parameters *tunnelParameters
	_          [16]byte
}

// setProtocol uses the requests from before rtnetlink, by which the fallback device cannot be changed (EINVAL in Linux
// 6.1).
func (rtnetlink) setProtocol(l link, protocol uint8) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p := &tunnelParameters{}
	r := &tunnelRequest{parameters: p}
	copy(r.name[:unix.IFNAMSIZ-1], l.name)
	if err := tunnelIoctl(fd, getTunnel, r); err != nil {
		return err
	}
	p.protocol = protocol
	return tunnelIoctl(fd, changeTunnel, r)
}

func tunnelIoctl(fd int, request uintptr, r *tunnelRequest) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(r)))
	runtime.KeepAlive(r)
	if errno != 0 {
		return errno
	}
	return nil
}
