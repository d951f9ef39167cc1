package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"lvstun/deploy/lab/box"
)

// onTerminal runs a command on a new pseudo-terminal (pty(7)).
func onTerminal(conn io.Reader, f *frames, cmd *exec.Cmd) (int, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	defer master.Close()
	fd := int(master.Fd()) // which also makes reads block, as they must for EIO to end them
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return 0, err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return 0, err
	}
	go control(conn, keepOpen{master}, cmd.Process.Pid, func(rows, columns uint16) {
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}) // a size it refuses stays as it is
	})
	io.Copy(f.as(stdout), master) // until EIO: nobody has the terminal open any more
	return box.Status(cmd.Wait())
}

// keepOpen is a terminal's input: it has no end that closing could tell of.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// IsTerminal says whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// RunOnTerminal is Run for a person: the command's terminal is this process's, for its own use while it runs.
func RunOnTerminal(conn io.ReadWriteCloser, req Request, terminal *os.File) (int, error) {
	fd := int(terminal.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return 0, err
	}
	raw := *was // as cfmakeraw(3)
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return 0, err
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, was)
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	defer signal.Stop(changes)
	changes <- unix.SIGWINCH // the first size
	req.Terminal = true
	return run(conn, req, terminal, os.Stdout, os.Stderr, changes, func(f *frames, _ os.Signal) {
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			p := binary.BigEndian.AppendUint16(nil, size.Row)
			f.write(resized, binary.BigEndian.AppendUint16(p, size.Col))
		}
	})
}
