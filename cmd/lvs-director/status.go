package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lvstun/director/client"
)

func statusCommand() *cobra.Command {
	var asJSON bool
	var socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this director: role, peer, VIPs, services, real servers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			director := client.Local(socket)
			defer director.Close()
			status, err := director.Status(cmd.Context())
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
	cmd.Flags().StringVar(&socket, "socket", defaultSocket, "the Unix socket of the director")
	return cmd
}

// printStatus writes the page a person reads in a terminal.
func printStatus(w io.Writer, s client.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "director\t%s\t%s for %s, term %d: %s\n", s.Name, s.Role, span(now.Sub(s.RoleSince)), s.Term, s.RoleReason)
	if p := s.Pair.Peer; p.Name != "" {
		fmt.Fprintf(t, "peer\t%s\t%s, term %d%s\n", p.Name, p.Role, p.Term, mismatch(p))
	} else if len(s.Pair.Paths) > 0 {
		fmt.Fprintf(t, "peer\t-\tnot heard yet\n")
	}
	for _, p := range s.Pair.Paths {
		fmt.Fprintf(t, "path\t%s–%s\t%s, heard %s, %d sent, %d received%s\n",
			p.Local, p.Peer, p.State, ago(now, p.LastHeard), p.Sent, p.Received, dropped(p.Dropped))
	}
	if len(s.Pair.Paths) > 0 {
		fmt.Fprintf(t, "rule\t\t%s\n", s.Rule)
	}
	for _, v := range s.VIPs {
		held := "not here"
		if v.Held {
			held = "here"
		}
		fmt.Fprintf(t, "vip\t%s\t%s on %s\n", v.Addr, held, v.Device)
	}
	if err := t.Flush(); err != nil {
		return err
	}

	for _, svc := range s.Services {
		fmt.Fprintf(w, "\n%s\n", serviceLine(svc))
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "  REAL SERVER\tADDRESS\tWEIGHT\tSTATE\tBY\tACTIVE\tINACTIVE\tWHY")
		for _, d := range svc.Destinations {
			weight := "-"
			if d.InUse {
				weight = strconv.Itoa(d.Weight)
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n",
				orDash(d.Name), d.Address, weight, d.State, d.Source, d.ActiveConns, d.InactiveConns, d.Reason)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}

	if n := len(s.Pair.Transitions); n > 0 {
		fmt.Fprintln(w, "\nlast transitions")
		for _, tr := range s.Pair.Transitions[max(0, n-5):] {
			fmt.Fprintf(w, "  %s  %s → %s: %s\n", tr.At.Format(time.DateTime), tr.From, tr.To, tr.Reason)
		}
	}
	for _, p := range s.Problems {
		fmt.Fprintln(w, "\nPROBLEM", p)
	}
	return nil
}

func serviceLine(s client.ServiceStatus) string {
	at := fmt.Sprintf("%s:%d/%s", s.VIP, s.Port, s.Protocol)
	if s.VIP.Is6() {
		at = fmt.Sprintf("[%s]:%d/%s", s.VIP, s.Port, s.Protocol)
	}
	if s.FWMark != 0 {
		at = fmt.Sprintf("fwmark %d (%s)", s.FWMark, s.VIP)
	}
	return fmt.Sprintf("%s  %s  %s  %d connections, %d packets, %d bytes in",
		s.Name, at, s.Scheduler, s.Stats.Conns, s.Stats.InPackets, s.Stats.InBytes)
}

func mismatch(p client.PeerStatus) string {
	switch {
	case p.DigestMatches:
		return ""
	case len(p.Differs) > 0:
		return ", ITS CONFIGURATION DIFFERS: " + strings.Join(p.Differs, ", ")
	}
	return ", ITS CONFIGURATION DIFFERS"
}

func dropped(byReason map[string]uint64) string {
	var total uint64
	for _, n := range byReason {
		total += n
	}
	if total == 0 {
		return ""
	}
	return fmt.Sprintf(", %d dropped", total)
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

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
