package fabric

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ethtoolValue is the kernel's struct ethtool_value (include/uapi/linux/ethtool.h).
type ethtoolValue struct{ cmd, data uint32 }

// ifreqData is the kernel's struct ifreq with its ifr_data member.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data *ethtoolValue
	_    [16]byte
}

// offloadOff makes the device carry every packet as it would be on a wire: no TSO, GSO or GRO.
func offloadOff(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
		req := ifreqData{data: &ethtoolValue{cmd: cmd, data: 0}}
		copy(req.name[:unix.IFNAMSIZ-1], device)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return fmt.Errorf("offload of %s off (ethtool command %#x): %w", device, cmd, errno)
		}
	}
	return nil
}

// in calls do in another network namespace. The thread goes back: threads must not end here, because the kernel ends a
// box (box.Start's parent-death signal) with the thread that started it.
func in(ns netns.NsHandle, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := netns.Set(ns); err != nil {
		return err
	}
	return errors.Join(do(), netns.Set(own))
}
