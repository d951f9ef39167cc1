package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lvstun/deploy/lab/machine"
	"lvstun/deploy/lab/topology"
	"lvstun/deploy/lab/wire"
)

// Files of the lab that is up.
const (
	upDir    = "/run/lvstun-lab"
	upSocket = upDir + "/socket" // every connection to it is a stream into the machine
	upFacts  = upDir + "/facts"  // what it printed when it came up
	upEnv    = upDir + "/env"    // the environment of its verbs
	upLog    = upDir + "/log"
)

// webPort is where a director serves its page on its own loopback; the first director's is the same on the host.
const webPort = 3636

// up is `lab up`.
func up(l *lab, args []string) (int, error) {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	topologyFile := flags.String("topology", "", "the topology's YAML `file`; the classic experiment's without it")
	if err := flags.Parse(args); err != nil {
		return 2, nil
	}
	if conn, err := net.Dial("unix", upSocket); err == nil {
		conn.Close()
		facts, err := os.ReadFile(upFacts)
		fmt.Printf("the lab is already up\n%s", facts)
		return 0, err
	}
	if _, err := topology.Load(*topologyFile); err != nil {
		return 1, err
	}
	keeper := exec.Command(l.self, "keep", *topologyFile)
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r, w, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	keeper.Stdout, keeper.Stderr = w, w
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := keeper.Start(); err != nil {
		return 1, err
	}
	w.Close()
	go func() {
		for s := range signals {
			keeper.Process.Signal(s) // it may have ended
		}
	}()
	io.Copy(os.Stdout, r) // until it is up, or has failed
	if conn, err := net.Dial("unix", upSocket); err == nil {
		return 0, conn.Close()
	}
	return 1, errors.New("the lab did not come up")
}

// keep is the process behind `lab up`: it holds the machine until it gets a signal.
func keep(l *lab, args []string) (int, error) {
	topologyFile := args[0]
	top, err := topology.Load(topologyFile)
	if err != nil {
		return 1, err
	}
	if err := os.MkdirAll(upDir, 0o755); err != nil {
		return 1, err
	}
	defer os.RemoveAll(upDir)
	out := l.out("up")
	env := l.environ(top, topologyFile, out)
	encoded, err := json.Marshal(env)
	if err != nil {
		return 1, err
	}
	if err := os.WriteFile(upEnv, encoded, 0o644); err != nil {
		return 1, err
	}
	return l.inMachine(func(m *machine.Machine, signals <-chan os.Signal) (int, error) {
		req, err := l.request("inside-up", topologyFile, out)
		if err != nil {
			return 1, err
		}
		said, tell := io.Pipe()
		input, hold := io.Pipe() // never written: its end would end the lab
		defer hold.Close()
		ended := make(chan error, 1)
		go func() {
			_, err := m.Run(req, input, tell, os.Stderr, signals)
			tell.Close()
			ended <- err
		}()
		if line, _ := bufio.NewReader(said).ReadString('\n'); strings.TrimSpace(line) != ready {
			return 1, <-ended
		}
		go io.Copy(io.Discard, said)
		if err := l.serveUp(m, top, env); err != nil {
			return 1, err
		}
		return 0, <-ended
	})
}

// serveUp makes the lab that is up reachable, starts the cluster, and leaves the terminal.
func (l *lab) serveUp(m *machine.Machine, top *topology.Topology, env []string) error {
	if len(top.WithRole(topology.Director)) > 0 {
		req, err := l.request("cluster")
		if err != nil {
			return err
		}
		req.Env = append(req.Env, env...)
		status, err := m.Run(req, nil, os.Stderr, os.Stderr, nil)
		if err != nil {
			return err
		}
		if status != 0 {
			say("the cluster does not serve; the nodes are up all the same")
		}
	}
	var facts strings.Builder
	for i, n := range top.WithRole(topology.Director) {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(webPort+i)))
		if err != nil {
			if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				return err
			}
		}
		fmt.Fprintf(&facts, "%s: http://%s/\n", n.Name, listener.Addr())
		argv := []string{l.self, "on", n.Name, l.self, "pipe", fmt.Sprintf("127.0.0.1:%d", webPort)}
		go accept(listener, func(conn net.Conn) {
			req := wire.Request{Argv: argv, Env: append(os.Environ(), env...), Dir: "/"}
			m.Run(req, conn, conn, io.Discard, nil) // a failure is a closed connection
		})
	}
	fmt.Fprintf(&facts, "try: %s on %s ip address\nend: %s down\n", l.self, top.Nodes[0].Name, l.self)
	if err := os.WriteFile(upFacts, []byte(facts.String()), 0o644); err != nil {
		return err
	}
	listener, err := net.Listen("unix", upSocket)
	if err != nil {
		return err
	}
	go accept(listener, func(conn net.Conn) {
		stream, err := m.Open()
		if err != nil {
			return
		}
		defer stream.Close()
		go func() {
			io.Copy(stream, conn) // ends with either side
			stream.Close()
		}()
		io.Copy(conn, stream)
	})
	fmt.Print(facts.String())
	log, err := os.Create(upLog)
	if err != nil {
		return err
	}
	defer log.Close()
	return errors.Join(unix.Dup2(int(log.Fd()), 1), unix.Dup2(int(log.Fd()), 2))
}

// pipe connects its standard files to a TCP address.
func pipe(_ *lab, args []string) (int, error) {
	if len(args) != 1 {
		return 2, errors.New("pipe ADDRESS")
	}
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return 1, err
	}
	go func() {
		io.Copy(conn, os.Stdin)          // its end is the other side's to notice
		conn.(*net.TCPConn).CloseWrite() // as is this one's
	}()
	_, err = io.Copy(os.Stdout, conn)
	return 0, err
}

// accept serves every connection in a goroutine and closes it then.
func accept(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// intoUp runs one of the lab's verbs in the lab that is up.
func (l *lab) intoUp(args []string) (int, error) {
	conn, err := net.Dial("unix", upSocket)
	if err != nil {
		return 1, errors.New("no lab is up: start one with bin/lab up")
	}
	encoded, err := os.ReadFile(upEnv)
	if err != nil {
		return 1, err
	}
	var env []string
	if err := json.Unmarshal(encoded, &env); err != nil {
		return 1, err
	}
	req, err := l.request(args...)
	if err != nil {
		return 1, err
	}
	req.Env = append(req.Env, env...)
	if wire.IsTerminal(os.Stdin) && wire.IsTerminal(os.Stdout) {
		return wire.RunOnTerminal(conn, req, os.Stdin)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return wire.Run(conn, req, os.Stdin, os.Stdout, os.Stderr, signals)
}

// down is `lab down`.
func down(_ *lab, _ []string) (int, error) {
	conn, err := net.Dial("unix", upSocket)
	if err != nil {
		fmt.Println("no lab is up")
		return 0, nil
	}
	pid, err := peer(conn.(*net.UnixConn))
	conn.Close()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGTERM)
	}
	if err != nil {
		return 1, err
	}
	for range 300 {
		if _, err := os.Stat(filepath.Dir(upSocket)); errors.Is(err, os.ErrNotExist) {
			fmt.Println("the lab is down")
			return 0, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 1, fmt.Errorf("the lab's keeper, PID %d, does not end", pid)
}

// peer is the PID of the process that listens at the other end.
func peer(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}
