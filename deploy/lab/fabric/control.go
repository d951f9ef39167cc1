package fabric

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
)

// control is the socket on which a fabric takes operations from the lab's own commands.
var control = filepath.Join(State, "control")

// Op is one operation on a node.
type Op struct {
	Verb   string // cut, heal, crash or boot
	Node   string
	Device string // of cut and heal; "" is every one
}

// Serve takes operations until the listener that it returns is closed.
func (f *Fabric) Serve() (net.Listener, error) {
	l, err := net.Listen("unix", control)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return l, nil
}

func (f *Fabric) serve(conn net.Conn) {
	defer conn.Close()
	var op Op
	if err := json.NewDecoder(conn).Decode(&op); err != nil {
		return
	}
	said := ""
	if err := f.do(op); err != nil {
		said = err.Error()
	}
	json.NewEncoder(conn).Encode(said) // the client may be gone
}

func (f *Fabric) do(op Op) error {
	switch op.Verb {
	case "cut":
		return f.Cut(op.Node, op.Device)
	case "heal":
		return f.Heal(op.Node, op.Device)
	case "crash":
		return f.Crash(op.Node)
	case "boot":
		return f.Boot(op.Node)
	}
	return fmt.Errorf("%q is no operation", op.Verb)
}

// Do asks the fabric that runs beside this process for an operation.
func Do(op Op) error {
	conn, err := net.Dial("unix", control)
	if err != nil {
		return fmt.Errorf("no topology is up here: %w", err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(op); err != nil {
		return err
	}
	var said string
	if err := json.NewDecoder(conn).Decode(&said); err != nil {
		return fmt.Errorf("%s %s: %w", op.Verb, op.Node, err)
	}
	if said != "" {
		return errors.New(said)
	}
	return nil
}
