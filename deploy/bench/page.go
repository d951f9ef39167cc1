package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// servePage answers every request on the listener with a page of one line, until ctx ends. It is HTTP/1.1 and no more
// than the load asks for: an emulated processor serves some hundred requests a second beside all the rest.
func servePage(ctx context.Context, l net.Listener, page string) error {
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s\n", len(page)+1, page))
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			answerAll(conn, answer)
		}()
	}
}

// answerAll serves one connection until the client wants no more of it.
func answerAll(conn net.Conn, answer []byte) {
	in := bufio.NewReaderSize(conn, 256)
	last := false
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch strings.TrimRight(line, "\r\n") {
		case "Connection: close":
			last = true
		case "":
			if _, err := conn.Write(answer); err != nil || last {
				return
			}
		}
	}
}
