package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lvstun/agent"
)

func statusCommand() *cobra.Command {
	var asJSON bool
	var socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this real server: tunnel side, directors, services",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := agent.FetchStatus(cmd.Context(), socket)
			if err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(status)
			}
			return printStatus(cmd.OutOrStdout(), status, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	cmd.Flags().StringVar(&socket, "socket", agent.DefaultSocket, "the Unix socket of the agent")
	return cmd
}

// printStatus writes the page a person reads in a terminal.
func printStatus(w io.Writer, s agent.Status, now time.Time) error {
	fmt.Fprintf(w, "real server  %s  %s, up %s\n", s.Name, s.Address, span(now.Sub(s.Since)))
	fmt.Fprintf(w, "tunnel side  %s\n", tunnelLine(s.Tunnel))
	for _, p := range s.Tunnel.Problems {
		fmt.Fprintf(w, "  PROBLEM %s\n", p)
	}
	for _, c := range s.Tunnel.Recent[:min(len(s.Tunnel.Recent), 5)] {
		fmt.Fprintf(w, "  %s  %s: %s → %s\n", c.At.Format(time.DateTime), c.What, c.Old, c.New)
	}
	fmt.Fprintf(w, "guard        %s\n", guardLine(s.Guard))
	if s.Guard.Problem != "" {
		fmt.Fprintf(w, "  PROBLEM %s\n", s.Guard.Problem)
	}
	fmt.Fprintf(w, "witness      %d questions of directors answered\n", s.Witness.Answered)
	if s.Witness.Problem != "" {
		fmt.Fprintf(w, "  PROBLEM %s\n", s.Witness.Problem)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nDIRECTOR\tNAME\tROLE\tTERM\tLAST ANSWER\tPROBLEM")
	for _, d := range s.Directors {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", d.Address, orDash(d.Name), orDash(d.Role), d.Term, ago(now, d.LastSuccess), d.Error)
	}
	fmt.Fprintln(t, "\nSERVICE\tAT\tSTATE\tFOR\tWEIGHT\tREASON")
	for _, v := range s.Services {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, at(v), v.State, span(now.Sub(v.Since)), weight(v.Weight), v.Reason)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range s.Differences {
		fmt.Fprintln(w, "\nDIRECTORS DIFFER", d)
	}
	return nil
}

func tunnelLine(t agent.TunnelStatus) string {
	vips := make([]string, len(t.VIPs))
	for i, v := range t.VIPs {
		vips[i] = v.String()
	}
	state := "not right"
	if t.OK {
		state = "right"
	}
	return fmt.Sprintf("%s, VIPs: %s, %d changes made", state, orDash(strings.Join(vips, " ")), t.Changes)
}

func guardLine(g agent.GuardStatus) string {
	line := fmt.Sprintf("%d packets refused", g.Refused)
	for _, name := range slices.Sorted(maps.Keys(g.Counters)) {
		line += fmt.Sprintf(", %s: %d", name, g.Counters[name])
	}
	return line
}

func at(v agent.ServiceStatus) string {
	if v.Protocol == "" {
		return "-"
	}
	return net.JoinHostPort(v.VIP.String(), strconv.Itoa(int(v.Port))) + "/" + v.Protocol
}

func weight(n int) string {
	if n == 0 {
		return "operator's"
	}
	return strconv.Itoa(n)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(now.Sub(t)) + " ago"
}

// span is a duration as people say it: to the second, from a minute on to the minute.
func span(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
