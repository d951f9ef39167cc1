package pair

import (
	"context"
	"errors"
	"net"
	"time"

	"lvstun/director/heartbeat"
)

// path is one heartbeat path with its socket. All but its way is the loop's.
type path struct {
	way
	id     int // unlike any other's
	socket socket
	err    string // why it has no socket
	end    context.CancelFunc
	ended  bool
}

// way is what makes a path the same after a reload.
type way struct {
	Path
	port uint16
}

func (c Config) ways() []way {
	ways := make([]way, len(c.Paths))
	for i, p := range c.Paths {
		ways[i] = way{p, c.Port}
	}
	return ways
}

// open opens ways, all or none. An address that may still come is no error:
// its way is not in what is returned.
func (p *Pair) open(ways []way) (map[way]socket, error) {
	sockets := map[way]socket{}
	var errs []error
	for _, w := range ways {
		s, err := p.listen(w.Path, w.port)
		switch {
		case err == nil:
			sockets[w] = s
		case !errors.Is(err, heartbeat.ErrNoAddress):
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		closeAll(sockets)
		return nil, errors.Join(errs...)
	}
	return sockets, nil
}

func closeAll(sockets map[way]socket) {
	for _, s := range sockets {
		_ = s.Close()
	}
}

// begin adds a path, with its socket where that is open already.
func (l *loop) begin(ctx context.Context, w way, s socket) {
	ctx, cancel := context.WithCancel(ctx)
	l.lastPath++
	at := &path{way: w, id: l.lastPath, end: cancel}
	l.paths = append(l.paths, at)
	l.p.board.addPath(at.id, w.Path)
	var err error
	if s == nil {
		s, err = l.p.listen(w.Path, w.port)
	}
	l.bound(at, s, err)
	l.work.Go(func() { l.p.receive(ctx, at, w, s) })
}

// finish takes a path away. Its socket is closed on return.
func (l *loop) finish(at *path) {
	at.ended = true
	at.end()
	if at.socket != nil {
		_ = at.socket.Close()
	}
	l.session.Forget(at.id)
	l.p.board.dropPath(at.id)
}

// bound notes that a path has a socket now, or why it has none.
func (l *loop) bound(at *path, s socket, err error) {
	if at.ended {
		return
	}
	at.socket, at.err = s, ""
	if err != nil {
		at.socket, at.err = nil, err.Error()
		l.p.log.Warn("heartbeat path not open, trying again", "local", at.Local, "err", err)
	}
	l.p.board.bound(at.id, at.err)
}

// rebindEvery is the time between two attempts to open a path.
const rebindEvery = 500 * time.Millisecond

// receive reads a path until ctx ends, and opens it again when it must.
func (p *Pair) receive(ctx context.Context, at *path, w way, s socket) {
	for {
		if s != nil {
			stop := context.AfterFunc(ctx, func() { _ = s.Close() })
			err := p.read(ctx, at, s)
			stop()
			_ = s.Close()
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s = nil
			p.post(ctx, func(l *loop) { l.bound(at, nil, err); l.condition() })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rebindEvery):
		}
		opened, err := p.listen(w.Path, w.port)
		if err != nil {
			p.board.bound(at.id, err.Error())
			continue
		}
		s = opened
		p.post(ctx, func(l *loop) { l.bound(at, opened, nil); l.condition() })
	}
}

// read hands datagrams to the loop until the socket fails.
func (p *Pair) read(ctx context.Context, at *path, s socket) error {
	for {
		d := new(datagram)
		n, fromPeer, err := s.Receive(d.b[:])
		if err != nil {
			return err
		}
		d.n, d.fromPeer = n, fromPeer
		p.post(ctx, func(l *loop) {
			if !at.ended {
				l.received(at, d)
			}
		})
	}
}
