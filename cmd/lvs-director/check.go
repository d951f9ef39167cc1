package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lvstun/director/config"
)

func checkCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Validate a configuration and name every problem in it",
		Long: "Reads a director.yaml or an lvs.cf and prints every problem as `path:line: what, value, why`.\n" +
			"Errors make the exit status 1; warnings do not. Nothing is changed.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(args[0], format, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d virtual services, %d real servers listed: good\n",
				args[0], len(cfg.Services), countServers(cfg))
			return nil
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func formatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVar(format, "format", "", `"yaml" or "lvs.cf" (default: by the file's name)`)
}

// loadConfig reads a configuration and prints its problems and warnings.
func loadConfig(path, format string, problems io.Writer) (*config.Config, error) {
	cfg, warnings, err := config.Load(path, config.Options{Format: format})
	var invalid *config.Invalid
	if errors.As(err, &invalid) {
		for _, p := range invalid.Problems {
			fmt.Fprintln(problems, p)
		}
		return nil, errSaid
	}
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		fmt.Fprintln(problems, w)
	}
	return cfg, nil
}

func countServers(cfg *config.Config) (n int) {
	for _, s := range cfg.Services {
		n += len(s.Servers)
	}
	return n
}
