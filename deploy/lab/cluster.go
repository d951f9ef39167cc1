package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lvstun/deploy/lab/cluster"
	"lvstun/deploy/lab/script"
	"lvstun/deploy/lab/topology"
)

// serveTime is how long a started cluster may take until every real server answers.
const serveTime = 30 * time.Second

// startCluster is `lab cluster`.
func startCluster(l *lab, _ []string) (int, error) {
	ctx, cancel := untilSignal()
	defer cancel()
	top, err := topology.Load(os.Getenv(script.EnvTopology))
	if err != nil {
		return 1, err
	}
	for _, program := range []string{"lvs-director", "lvs-agent"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(l.self), program)); err != nil {
			return 1, fmt.Errorf("%s is missing beside %s: run make build", program, l.self)
		}
	}
	if len(top.WithRole(topology.Director)) == 0 || len(top.WithRole(topology.RealServer)) == 0 {
		return 1, errors.New("a cluster needs a director and a real server: this topology lacks one")
	}
	if err := l.configure(ctx, top); err != nil {
		return 1, err
	}
	for _, n := range top.Nodes {
		if boot := cluster.Boot(n); boot != "" {
			if err := l.write(ctx, n, "/etc/lvstun/boot", boot); err != nil {
				return 1, err
			}
			if _, err := l.onNode(ctx, n.Name, "", "bash", "/etc/lvstun/boot"); err != nil {
				return 1, err
			}
		}
	}
	return 0, l.awaitPages(ctx, top)
}

// configure writes every node's files.
func (l *lab) configure(ctx context.Context, top *topology.Topology) error {
	directors := top.WithRole(topology.Director)
	for i, n := range directors {
		if err := l.write(ctx, n, cluster.DirectorConfig, cluster.Director(top, n)); err != nil {
			return err
		}
		if i == 0 {
			if _, err := l.onNode(ctx, n.Name, "", "lvs-director", "keygen", cluster.Key); err != nil {
				return err
			}
			continue
		}
		key, err := l.onNode(ctx, directors[0].Name, "", "cat", cluster.Key)
		if err != nil {
			return err
		}
		if err := l.write(ctx, n, cluster.Key, key); err != nil {
			return err
		}
	}
	for _, n := range top.WithRole(topology.RealServer) {
		token, err := l.onNode(ctx, directors[0].Name, "", "lvs-director", "token", "--config", cluster.DirectorConfig,
			"--name", n.FullName, "--address", n.Address().String(), "--service", cluster.Service)
		if err != nil {
			return err
		}
		for path, content := range map[string]string{cluster.Token: token, cluster.AgentConfig: cluster.Agent(top), cluster.Page: n.Page + "\n"} {
			if err := l.write(ctx, n, path, content); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes a file on a node, readable by root alone.
func (l *lab) write(ctx context.Context, n topology.Node, path, content string) error {
	_, err := l.onNode(ctx, n.Name, content, "sh", "-c", `umask 077; mkdir -p "${0%/*}" && cat >"$0"`, path)
	return err
}

// awaitPages waits until a client has seen every real server's page at the VIP.
func (l *lab) awaitPages(ctx context.Context, top *topology.Topology) error {
	from := append(top.WithRole(topology.Client), top.WithRole(topology.Gateway)...)
	if len(from) == 0 {
		return errors.New("the cluster is started; this topology has no client to see it serve")
	}
	missing := map[string]bool{}
	for _, n := range top.WithRole(topology.RealServer) {
		missing[n.Page] = true
	}
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	url := "http://" + netip.AddrPortFrom(top.VIP, 80).String() + "/"
	var last error
	for len(missing) > 0 {
		page, err := l.onNode(ctx, from[0].Name, "", "curl", "-sS", "-f", "-m", "1", url)
		if ctx.Err() != nil {
			names := strings.Join(slices.Sorted(maps.Keys(missing)), ", ")
			return fmt.Errorf("the cluster does not serve after %s: nothing seen of %s; the last request: %w", serveTime, names, last)
		}
		delete(missing, strings.TrimSpace(page))
		if last = err; err != nil {
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}
