package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"lvstun/director"
	"lvstun/director/config"
	"lvstun/director/trust"
)

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen [FILE]",
		Short: "Make the cluster key (default " + defaultKey + ")",
		Long: "Makes the key that all directors of one cluster share, and nobody else. It authenticates their\n" +
			"heartbeats and is what tokens are made from. Copy the file once to the other director, mode 0600.\n" +
			"An existing file is never overwritten.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := defaultKey
			if len(args) == 1 {
				path = args[0]
			}
			if err := trust.WriteKeyFile(path, trust.GenerateKey()); errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists and stays as it is; move it away to make a new key, which makes every token void", path)
			} else if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s written; copy it to the other director, mode 0600, and to no other host\n", path)
			return nil
		},
	}
}

func tokenCommand() *cobra.Command {
	var claims trust.Claims
	var keyFile, configFile string
	var addresses []string
	cmd := &cobra.Command{
		Use:   "token --name NAME --address ADDRESS --service SERVICE",
		Short: "Print the token that lets one real server register itself",
		Long: "Prints a token for the agent of one real server: its name, its addresses and the virtual services it\n" +
			"may join, sealed with the cluster key, and the pin of the directors' TLS key. Put it into\n" +
			"/etc/lvstun/token on that real server, mode 0600. It is worth nothing from another address.\n" +
			"With --config the claims are held against the configuration first.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, a := range addresses {
				addr, err := netip.ParseAddr(a)
				if err != nil {
					return fmt.Errorf("--address %q: want an IP address of the real server, such as 192.168.1.100", a)
				}
				claims.Addresses = append(claims.Addresses, addr)
			}
			if problems := claims.Validate(); len(problems) > 0 {
				return errors.Join(problems...)
			}
			if configFile != "" {
				cfg, err := loadConfig(configFile, "", cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				if err := useful(claims, cfg); err != nil {
					return err
				}
				if !cmd.Flags().Changed("cluster-key") {
					keyFile = cfg.ClusterKeyFile
				}
			}
			key, err := trust.ReadKeyFile(keyFile)
			if err != nil {
				return err
			}
			token, err := key.Mint(claims)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), token.Bearer())
			return nil
		},
	}
	cmd.Flags().StringVar(&claims.Name, "name", "", "the real server's name (required)")
	cmd.Flags().StringSliceVar(&addresses, "address", nil, "its own address, the RIP; repeat for several (required)")
	cmd.Flags().StringSliceVar(&claims.Services, "service", nil, "a virtual service it may join, by name; repeat for several (required)")
	cmd.Flags().StringVar(&keyFile, "cluster-key", defaultKey, "the cluster key file")
	cmd.Flags().StringVar(&configFile, "config", "", "hold the claims against this configuration, and use its cluster key")
	for _, name := range []string{"name", "address", "service"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

// useful tells what of the claims the configuration would refuse: a token is
// made before the real server is set up, and a mistake shows only there.
func useful(claims trust.Claims, cfg *config.Config) error {
	var problems []error
	for _, name := range claims.Services {
		i := slices.IndexFunc(cfg.Services, func(s config.Service) bool { return s.Name == name })
		if i < 0 {
			problems = append(problems, fmt.Errorf("--service %s: %s has no such service", name, cfg.Path))
			continue
		}
		for _, addr := range claims.Addresses {
			if !director.MayRegister(cfg.Services[i], addr) {
				problems = append(problems, fmt.Errorf("--address %s: service %s of %s neither lists it nor covers it by register.from",
					addr, name, cfg.Path))
			}
		}
	}
	return errors.Join(problems...)
}
