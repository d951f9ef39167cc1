package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lvstun/agent"
)

func runCommand() *cobra.Command {
	var path, socket string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve this real server until told to stop",
		Long: "Builds and keeps the tunnel side, checks the services and registers with every director.\n" +
			"On SIGTERM it leaves the directors; the tunnel side stays as it is.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			token, err := cfg.Token()
			if err != nil {
				return err
			}
			if err := privileged(); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			a, err := agent.New(agent.Options{
				Config: cfg, Token: token, Version: version, Socket: socket, Log: log,
				Notify: func(state string) {
					if _, err := daemon.SdNotify(false, state); err != nil {
						log.Warn("the service manager was not told", "state", state, "err", err)
					}
				},
			})
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "the configuration")
	cmd.Flags().StringVar(&socket, "socket", agent.DefaultSocket, "the Unix socket for `lvs-agent status`")
	return cmd
}

// privileged says what is missing before half of the work has been done.
func privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the process's capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errors.New("the capability CAP_NET_ADMIN is missing, without which the tunnel side can be neither built nor undone: run as root or by the systemd unit")
	}
	return nil
}
