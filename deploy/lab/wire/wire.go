// Package wire runs a command at the other end of a stream: its request, its standard files, the signals sent to it and
// its exit status, as frames on one connection.
package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// A frame is its kind, the length of what follows as 4 big-endian bytes, and that.
type kind byte

const (
	request   kind = iota + 1 // Request as JSON; the first frame to the server
	stdin                     // empty: end of file
	signalled                 // 1 byte: the signal's number
	stdout                    // to the client
	stderr
	exited  // 1 byte, the status; the last frame
	failed  // a sentence: the command could not be run; the last frame
	resized // 4 bytes: the terminal's rows and columns, 2 each; to the server
)

// maxFrame bounds a frame's content; longer output is sent as several.
const maxFrame = 64 << 10

// Request is a command to run.
type Request struct {
	Argv     []string
	Env      []string
	Dir      string
	Terminal bool // it gets a terminal of its own; its output and its errors come as one
}

// frames writes whole frames from any goroutine.
type frames struct {
	mu sync.Mutex // held over one frame
	w  io.Writer
}

func (f *frames) write(k kind, p []byte) error {
	frame := make([]byte, 5, 5+len(p))
	frame[0] = byte(k)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(p)))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.w.Write(append(frame, p...))
	return err
}

// as is a Writer whose every Write becomes frames of one kind.
func (f *frames) as(k kind) io.Writer { return writerAs{f, k} }

type writerAs struct {
	*frames
	k kind
}

func (w writerAs) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), maxFrame)
		if err := w.write(w.k, p[:n]); err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

func readFrame(r io.Reader) (kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	// A request may hold a long environment; everything else is at most maxFrame.
	if n > 16*maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is longer than %d", n, 16*maxFrame)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, nil, fmt.Errorf("frame of %d bytes: %w", n, err)
	}
	return kind(head[0]), p, nil
}
