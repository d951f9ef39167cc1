// lvs-director keeps a virtual IP, its IPVS table and the health of the real
// servers behind it, as one of two equal directors.
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
)

// version is set when the program is built.
var version = "unknown"

// Where things are unless flags say otherwise.
const (
	defaultConfig = "/etc/lvstun/director.yaml"
	defaultKey    = "/etc/lvstun/cluster.key"
	runFolder     = "/run/lvstun"
	defaultSocket = runFolder + "/director.sock"
	ownedFile     = runFolder + "/director.services.json"
	settingsFile  = runFolder + "/director.sysctl.json"
)

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
		Use:           "lvs-director",
		Short:         "One of the two directors of an LVS/TUN cluster",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(), checkCommand(), statusCommand(), handoverCommand(), saveCommand(), keygenCommand(), tokenCommand())
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errSaid):
		fmt.Fprintln(stderr, "lvs-director:", err)
	}
	return 1
}
