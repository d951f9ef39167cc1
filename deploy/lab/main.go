// Command lab runs networks of namespaces with a real IPVS in them: for a script, for the kernel tests, or for a person.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"lvstun/deploy/lab/box"
	"lvstun/deploy/lab/machine"
)

const usage = `usage: lab COMMAND

  install                           install what the lab needs on this host
  run [--topology FILE] SCRIPT ARG… build the topology, run the bash script, tear down
  test [-run REGEXP]                run bin/kernel-tests/*.test and deploy/lab/scenarios/*.sh
  tour                              the classic experiment, narrated
  up [--topology FILE]              build the topology and start the cluster, kept up until
  down

In scripts, and from here while a lab is up:

  on NODE CMD…                      run a command on a node
  start NODE NAME CMD…              run it in the background under a name, logged
  stop NODE NAME [SIGNAL]           signal it (TERM) and wait until it is gone
  cut NODE [DEVICE], heal …         take a cable out (all of them), put it back
  crash NODE, boot NODE             pull the plug, put it back
  nodes [ROLE]                      print the nodes' names
  cluster                           configure and start the whole cluster
`

// command is one word of the command line. It returns the status to exit with.
type command func(l *lab, args []string) (int, error)

var (
	commands = map[string]command{
		"install": install, "run": run, "test": test, "tour": tour, "up": up, "down": down,
	}
	// verbs work inside the machine; from outside they are sent into the lab that is up.
	verbs = map[string]command{
		"on": on, "start": start, "stop": stop, "cut": operate, "heal": operate, "crash": operate, "boot": operate,
		"nodes": nodes, "cluster": startCluster,
	}
	// hidden are the lab's own.
	hidden = map[string]command{
		"inside-run": insideRun, "inside-test": insideTest, "inside-up": insideUp, "keep": keep, "pipe": pipe, "spawn": spawn, "halt": halt, "client": client,
	}
)

func main() {
	status, err := dispatch(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		if status == 0 {
			status = 1
		}
	}
	os.Exit(status)
}

func dispatch(args []string) (int, error) {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Print(usage)
		return 0, nil
	}
	switch name := args[0]; {
	case name == box.Command && len(args) == 2:
		return box.Main(args[1]), nil
	case name == machine.Guest && len(args) == 2:
		machine.GuestMain(args[1])
	case name == machine.Service:
		if err := syscall.SetNonblock(0, true); err != nil {
			return 0, err
		}
		return 0, machine.Serve(os.NewFile(0, "channel"))
	}
	l, err := newLab(args[0])
	if err != nil {
		return 0, err
	}
	if c := hidden[args[0]]; c != nil {
		return c(l, args[1:])
	}
	if verbs[args[0]] == nil && commands[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		return 2, fmt.Errorf("%q is no command", args[0])
	}
	if os.Geteuid() != 0 {
		return 0, l.sudo(args)
	}
	if c := commands[args[0]]; c != nil {
		return c(l, args[1:])
	}
	if os.Getenv(envInside) == "" {
		return l.intoUp(args)
	}
	return verbs[args[0]](l, args[1:])
}

// lab is the running command and where it stands.
type lab struct {
	name string // the command
	self string // this binary
	root string // the checkout: the folder above self's
}

func newLab(name string) (*lab, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	return &lab{name: name, self: self, root: filepath.Dir(filepath.Dir(self))}, err
}

// sudo becomes this command run as root.
func (l *lab) sudo(args []string) error {
	path, err := exec.LookPath("sudo")
	if err != nil {
		return errors.New("the lab makes namespaces and virtual machines, which needs root: run it as root or install sudo")
	}
	argv := append([]string{"sudo", "--", "env", "PATH=" + os.Getenv("PATH"), l.self}, args...)
	return syscall.Exec(path, argv, os.Environ())
}

// path is the PATH of everything in the lab: the checkout's own programs first, and the system's.
func (l *lab) path() string {
	dirs := []string{filepath.Dir(l.self), os.Getenv("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}
	return strings.Join(dirs, ":")
}
