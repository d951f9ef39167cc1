package main

import (
	_ "embed"
	"os"
	"path/filepath"
)

//go:embed tour.sh
var tourScript []byte

// tour is `lab tour`.
func tour(l *lab, args []string) (int, error) {
	dir, err := os.MkdirTemp("", "lvstun-tour-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tour.sh")
	if err := os.WriteFile(path, tourScript, 0o644); err != nil {
		return 1, err
	}
	return l.runScript("", "tour", append([]string{path}, args...))
}
