package result

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table writes the summary for a terminal.
func (r Run) Table(w io.Writer) error {
	for _, line := range r.stamp() {
		fmt.Fprintln(w, line)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, event := range Events {
		rows := r.rows(event.Name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(t, "\n%s\n", event.Title)
		fmt.Fprintf(t, "  \t%s\t\n", strings.Join(columns, "\t"))
		for _, row := range rows {
			fmt.Fprintf(t, "  %s\t%s\t%s\n", row.System, strings.Join(row.cells(), "\t"), row.trouble())
		}
	}
	fmt.Fprintf(t, "\n%s\n", legend)
	return t.Flush()
}

// Markdown writes the summary as tables for a README.
func (r Run) Markdown(w io.Writer) error {
	var b strings.Builder
	for _, event := range Events {
		rows := r.rows(event.Name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |\n|---|%s\n", event.Title, strings.Join(columns, " | "), strings.Repeat("--:|", len(columns)))
		for _, row := range rows {
			name := row.System
			if row.Troubled > 0 {
				name += " (" + row.trouble() + ")"
			}
			fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Join(row.cells(), " | "))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s\n\n%s\n", legend, strings.Join(r.stamp(), "  \n"))
	_, err := io.WriteString(w, b.String())
	return err
}

var columns = []string{"longest gap", "failed requests", "flows reset", "flows lost", "two holders"}

const legend = "Median of the repetitions, and the largest where it differs. Gap: the client's longest time without a request that ended well."

func (r Row) cells() []string {
	return []string{duration(r.Gap), number(r.Failed), number(r.Resets), number(r.Lost), duration(r.TwoHolders)}
}

// trouble is "" where all repetitions went as they should.
func (r Row) trouble() string {
	if r.Troubled == 0 {
		return ""
	}
	return fmt.Sprintf("trouble in %d of %d", r.Troubled, r.Repetitions)
}

func (r Run) rows(event string) []Row {
	var rows []Row
	for _, row := range r.Summary {
		if row.Event == event {
			rows = append(rows, row)
		}
	}
	return rows
}

// stamp says when and on what the run was, and how it measured.
func (r Run) stamp() []string {
	programs := make([]string, 0, len(r.Versions))
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		programs = append(programs, name+" "+r.Versions[name])
	}
	least, most := math.MaxInt, 0
	for _, row := range r.Summary {
		least, most = min(least, row.Repetitions), max(most, row.Repetitions)
	}
	repetitions := fmt.Sprint(most)
	if least < most {
		repetitions = fmt.Sprintf("%d to %d", least, most)
	}
	var heldUp []float64
	for _, m := range r.Measurements {
		heldUp = append(heldUp, m.Client.HeldUpMS)
	}
	return []string{
		fmt.Sprintf("%s, kernel %s on %s, %s; %s repetitions of each event",
			r.Began, r.Kernel, r.Processor, strings.Join(programs, ", "), repetitions),
		fmt.Sprintf("The machine held the client itself up for %s, which is part of the gaps.", duration(SpreadOf(heldUp))),
	}
}

// duration shows a spread of milliseconds.
func duration(s Spread) string { return spread(s, span) }

// number shows a spread of counts.
func number(s Spread) string {
	return spread(s, func(n float64) string { return fmt.Sprintf("%g", n) })
}

func spread(s Spread, show func(float64) string) string {
	median, largest := show(s.Median), show(s.Max)
	if median == largest {
		return median
	}
	return median + ", max " + largest
}

// span shows milliseconds as a person writes them.
func span(ms float64) string {
	switch {
	case ms == 0:
		return "0"
	case ms < 1:
		return "< 1 ms"
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", ms/1000)
}
