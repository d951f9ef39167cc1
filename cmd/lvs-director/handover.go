package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lvstun/director/client"
)

// handoverPoll is how often the handover is looked at, handoverTime how long it may take.
const (
	handoverPoll = 20 * time.Millisecond
	handoverTime = 10 * time.Second
)

func handoverCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "handover",
		Short: "Have the two directors change roles",
		Long: "The active director gives the VIPs to the standby, the standby asks for them: it may be called on\n" +
			"either. It returns when the other role is taken. Connections go on where `sync` is configured.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			director := client.Local(socket)
			defer director.Close()
			before, err := director.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := director.Handover(cmd.Context()); err != nil {
				return err
			}
			poll := time.NewTicker(handoverPoll)
			defer poll.Stop()
			for deadline := time.Now().Add(handoverTime); time.Now().Before(deadline); {
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-poll.C:
				}
				now, err := director.Status(cmd.Context())
				if err != nil {
					return err
				}
				if now.Role != before.Role && now.Role != "confirming" {
					fmt.Fprintf(cmd.OutOrStdout(), "%s was %s and is %s, term %d\n", now.Name, before.Role, now.Role, now.Term)
					return nil
				}
			}
			return fmt.Errorf("%s is still %s after %v; see `lvs-director status` on both", before.Name, before.Role, handoverTime)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", defaultSocket, "the Unix socket of the director")
	return cmd
}
