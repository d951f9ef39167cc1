package main

import (
	"github.com/spf13/cobra"

	"lvstun/director/ipvs"
)

func saveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "save",
		Short: "Print the kernel's IPVS table as `ipvsadm --save -n` does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kernel, err := ipvs.Open()
			if err != nil {
				return err
			}
			defer kernel.Close()
			services, err := kernel.Services(cmd.Context())
			if err != nil {
				return err
			}
			return ipvs.Save(cmd.OutOrStdout(), services)
		},
	}
}
