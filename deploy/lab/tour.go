package main

import (
	_ "embed"
	"os"
	"path/filepath"

	"lvstun/deploy/lab/wire"
)

//go:embed tour.sh
var tourScript []byte

// tour is `lab tour`.
func tour(l *lab, _ []string) (int, error) {
	dir, err := os.MkdirTemp("", "lvstun-tour-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tour.sh")
	if err := os.WriteFile(path, tourScript, 0o644); err != nil {
		return 1, err
	}
	colour := "plain"
	if wire.IsTerminal(os.Stdout) {
		colour = "colour"
	}
	return l.runScript("", "tour", []string{path, colour})
}
