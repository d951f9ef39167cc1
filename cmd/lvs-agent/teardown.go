package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lvstun/agent"
)

func teardownCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "teardown",
		Short: "Put this host back as it was before the agent",
		Long: "Removes the VIPs, the tunnel devices that the agent made and its nftables table, and puts back the kernel\n" +
			"settings that it changed. What somebody else has changed since is left, and said. A running agent must be\n" +
			"stopped first. The exit status is 1 if something could not be undone.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := privileged(); err != nil {
				return err
			}
			undone, err := agent.Teardown(cmd.Context(), socket)
			printUndone(cmd.OutOrStdout(), undone, err == nil)
			return err
		},
	}
	cmd.Flags().StringVar(&socket, "socket", agent.DefaultSocket, "the Unix socket of the agent that must not run")
	return cmd
}

func printUndone(w io.Writer, u agent.Undone, all bool) {
	for _, c := range u.Changes {
		fmt.Fprintf(w, "%s: %s → %s\n", c.What, c.Old, c.New)
	}
	for _, l := range u.Left {
		fmt.Fprintln(w, "LEFT", l)
	}
	if all && len(u.Changes)+len(u.Left) == 0 {
		fmt.Fprintln(w, "nothing of the agent's is on this host")
	}
}
