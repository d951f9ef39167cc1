// lvs-agent keeps a real server's end of an LVS/TUN cluster: the tunnel, the VIPs on it, the checks of
// what it serves, and its registration with the directors.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"lvstun/agent"
)

// version is set when the program is built.
var version = "unknown"

const defaultConfig = "/etc/lvstun/agent.yaml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errSaid ends a command whose output has already said what is wrong.
var errSaid = errors.New("failed")

// run is the whole program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "lvs-agent",
		Short:         "A real server's part of an LVS/TUN cluster",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(), checkCommand(), statusCommand(), teardownCommand())
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errSaid):
		fmt.Fprintln(stderr, "lvs-agent:", err)
	}
	return 1
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Validate a configuration and name every problem in it",
		Long:  "Reads an agent.yaml and prints every problem as `path:line: what, value, why`; then the exit status is 1.\nNothing is changed.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(args[0], cmd.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d directors, token in %s: good\n", args[0], len(cfg.Directors), cfg.TokenFile)
			return nil
		},
	}
}

// loadConfig reads a configuration and prints its problems.
func loadConfig(path string, problems io.Writer) (agent.Config, error) {
	cfg, err := agent.LoadConfig(path)
	var invalid *agent.Invalid
	if errors.As(err, &invalid) {
		fmt.Fprintln(problems, invalid)
		return agent.Config{}, errSaid
	}
	return cfg, err
}
