package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTopologyOf(t *testing.T) {
	dir := t.TempDir()
	for script, want := range map[string]string{
		"# topology: three.yaml\ncluster\n":                     filepath.Join(dir, "three.yaml"),
		"#!/bin/bash\n# What it shows.\n\n# topology: a/b.yaml": filepath.Join(dir, "a/b.yaml"),
		"cluster\n# topology: late.yaml\n":                      "",
		"":                                                      "",
	} {
		path := filepath.Join(dir, "s.sh")
		if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := topologyOf(path); err != nil || got != want {
			t.Errorf("topologyOf(%q) = %q, %v; want %q", script, got, err, want)
		}
	}
	if _, err := topologyOf(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing scenario has a topology")
	}
}

// Every command that a person may type is in the usage, and nothing else is.
func TestUsage(t *testing.T) {
	for name := range commands {
		if !strings.Contains(usage, "\n  "+name) {
			t.Errorf("the usage lacks %s", name)
		}
	}
	for name := range verbs {
		if !strings.Contains(usage, name+" NODE") && !strings.Contains(usage, "\n  "+name) && name != "heal" {
			t.Errorf("the usage lacks %s", name)
		}
	}
	for name := range hidden {
		if strings.Contains(usage, "\n  "+name+" ") {
			t.Errorf("the usage shows %s", name)
		}
	}
}

func TestNodeEnv(t *testing.T) {
	env := make([]string, 1, 10)
	env[0] = "A=b"
	one, two := nodeEnv(env, "one"), nodeEnv(env, "two")
	if one[1] != "LAB_NODE=one" || two[1] != "LAB_NODE=two" {
		t.Errorf("nodes share an environment: %q, %q", one, two)
	}
}
