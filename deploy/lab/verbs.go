package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"lvstun/deploy/lab/box"
	"lvstun/deploy/lab/fabric"
	"lvstun/deploy/lab/script"
	"lvstun/deploy/lab/topology"
)

// on is `lab on NODE CMD…`.
func on(_ *lab, args []string) (int, error) {
	if len(args) < 2 {
		return 2, errors.New("on NODE CMD…: which node, and which command?")
	}
	return enter(args[0], args[1:])
}

// enter runs a command on a node.
func enter(node string, argv []string) (int, error) {
	pid, err := fabric.Pid(node)
	if err != nil {
		return 1, err
	}
	return box.Enter(pid, argv, nodeEnv(os.Environ(), node))
}

// start is `lab start NODE NAME CMD…`.
func start(l *lab, args []string) (int, error) {
	if len(args) < 3 {
		return 2, errors.New("start NODE NAME CMD…: which node, which name, and which command?")
	}
	return enter(args[0], append([]string{l.self, "spawn"}, args[1:]...))
}

// stop is `lab stop NODE NAME [SIGNAL]`.
func stop(l *lab, args []string) (int, error) {
	if len(args) < 2 || len(args) > 3 {
		return 2, errors.New("stop NODE NAME [SIGNAL]: which node, and which name?")
	}
	return enter(args[0], append([]string{l.self, "halt"}, args[1:]...))
}

// spawn is start on the node itself: NAME CMD….
func spawn(_ *lab, args []string) (int, error) {
	if len(args) < 2 {
		return 2, errors.New("start NAME CMD…: which name, and which command?")
	}
	log := filepath.Join(os.Getenv(script.EnvLogs), os.Getenv(script.EnvNode)+"."+args[0]+".log")
	return 0, box.Spawn(args[0], args[1:], os.Environ(), log)
}

// patience is how long a stopped process may take to end: an agent may drain for long.
const patience = time.Minute

// halt is stop on the node itself: NAME [SIGNAL].
func halt(_ *lab, args []string) (int, error) {
	sig := syscall.SIGTERM
	if len(args) > 1 {
		var err error
		if sig, err = box.Signal(args[1]); err != nil {
			return 2, err
		}
	}
	return 0, box.Stop(args[0], sig, patience)
}

// operate is `lab cut|heal|crash|boot NODE [DEVICE]`.
func operate(l *lab, args []string) (int, error) {
	op := fabric.Op{Verb: l.name}
	switch {
	case len(args) == 1:
		op.Node = args[0]
	case len(args) == 2 && (l.name == "cut" || l.name == "heal"):
		op.Node, op.Device = args[0], args[1]
	default:
		return 2, fmt.Errorf("%s NODE: which one node?", l.name)
	}
	return 0, fabric.Do(op)
}

// nodes is `lab nodes [ROLE]`.
func nodes(_ *lab, args []string) (int, error) {
	top, err := topology.Load(os.Getenv(script.EnvTopology))
	if err != nil {
		return 1, err
	}
	list := top.Nodes
	if len(args) > 0 {
		list = top.WithRole(topology.Role(args[0]))
	}
	for _, n := range list {
		fmt.Println(n.Name)
	}
	return 0, nil
}
