package result

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// Sizes of the chart, in pixels.
const (
	chartWidth = 960
	plotLeft   = 190
	plotRight  = 530
	rowHeight  = 24
	barHeight  = 12
	panelHead  = 66
	margin     = 24
)

// noteColumns are the columns beside the bars: where they begin, what they show.
var noteColumns = []struct {
	x     int
	title string
	cell  func(Row) string
}{
	{690, "failed requests", func(r Row) string { return number(r.Failed) }},
	{800, "broken flows", func(r Row) string { return fmt.Sprintf("%s of %d", number(r.Broken), r.Flows) }},
	{936, "two holders", func(r Row) string { return duration(r.TwoHolders) }},
}

// style makes the chart readable on any page: it brings its own ground, dark where the reader's is.
const style = `
svg{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
.ground{fill:#fff;stroke:#d0d7de}.text{fill:#1f2328}.faint{fill:#59636e;font-size:11px}.title{fill:#1f2328;font-weight:600}
.grid{stroke:#d8dee4}.ours{fill:#0969da}.theirs{fill:#8c959f}.max{stroke:#1f2328;stroke-width:1.5}
@media (prefers-color-scheme:dark){
.ground{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}.faint{fill:#9198a1}.title{fill:#f0f6fc}
.grid{stroke:#2a313c}.ours{fill:#4493f8}.theirs{fill:#6e7681}.max{stroke:#f0f6fc}}
`

// chart is a chart being written.
type chart struct {
	strings.Builder
	low, high float64 // powers of ten: milliseconds at the ends of the axis
	y         int
}

// Chart writes the longest gaps as an SVG on a logarithmic axis: a bar to the median, a line to the largest.
func (r Run) Chart(w io.Writer) error {
	c := &chart{y: margin + 14}
	c.low, c.high = axis(r.Summary)
	for _, event := range Events {
		if rows := r.rows(event.Name); len(rows) > 0 {
			c.panel(event.Title, rows)
		}
	}
	var stamp []string
	for _, row := range r.Summary {
		if row.Troubled > 0 {
			stamp = append(stamp, fmt.Sprintf("%s, %s: %s", row.System, row.Event, row.trouble()))
		}
	}
	stamp = append(stamp, r.stamp()...)
	height := c.y + margin/2 + len(stamp)*16 + margin
	body := c.String()
	c.Reset()
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="The client's longest gap in service at failovers">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(c, "<style>%s</style>\n", style)
	fmt.Fprintf(c, `<rect class="ground" x=".5" y=".5" width="%d" height="%d" rx="6"/>`+"\n", chartWidth-1, height-1)
	c.text("title", margin, margin+8, "start", "The client's longest gap in service: bar to the median, line to the largest, logarithmic")
	c.WriteString(body)
	for i, line := range stamp {
		c.text("faint", margin, height-margin+4-16*(len(stamp)-1-i), "start", line)
	}
	c.WriteString("</svg>\n")
	_, err := io.WriteString(w, c.String())
	return err
}

// panel draws one event.
func (c *chart) panel(title string, rows []Row) {
	c.text("title", margin, c.y+30, "start", title)
	for _, n := range noteColumns {
		c.text("faint", n.x, c.y+52, "end", n.title)
	}
	top := c.y + panelHead - 8
	bottom := top + len(rows)*rowHeight
	for ms := c.low; ms <= c.high; ms *= 10 {
		x := c.x(ms)
		fmt.Fprintf(c, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x, top, x, bottom)
		c.text("faint", int(x), c.y+52, "middle", tick(ms))
	}
	for i, row := range rows {
		c.row(row, top+i*rowHeight)
	}
	c.y = bottom
}

// row draws one system.
func (c *chart) row(r Row, y int) {
	middle := y + rowHeight/2
	kind := "theirs"
	if strings.HasPrefix(r.System, "lvstun") {
		kind = "ours"
	}
	median, largest := c.x(r.Gap.Median), c.x(r.Gap.Max)
	c.text("text", plotLeft-10, middle+4, "end", r.System)
	fmt.Fprintf(c, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n",
		kind, plotLeft, middle-barHeight/2, median-plotLeft, barHeight)
	fmt.Fprintf(c, `<path class="max" d="M%.1f %dH%.1fM%.1f %dV%d"/>`+"\n", median, middle, largest, largest, middle-5, middle+5)
	c.text("text", int(largest)+8, middle+4, "start", span(r.Gap.Median))
	for _, n := range noteColumns {
		c.text("text", n.x, middle+4, "end", n.cell(r))
	}
}

func (c *chart) text(class string, x, y int, anchor, s string) {
	fmt.Fprintf(c, `<text class="%s" x="%d" y="%d" text-anchor="%s">`, class, x, y, anchor)
	xml.EscapeText(c, []byte(s)) // a strings.Builder takes all
	c.WriteString("</text>\n")
}

// x is where a number of milliseconds is on the axis.
func (c *chart) x(ms float64) float64 {
	share := math.Log10(max(ms, c.low)/c.low) / math.Log10(c.high/c.low)
	return plotLeft + share*(plotRight-plotLeft)
}

// axis finds the powers of ten around the gaps: at least one decade.
func axis(rows []Row) (low, high float64) {
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		if r.Gap.Median > 0 {
			least = min(least, r.Gap.Median)
		}
		most = max(most, r.Gap.Max)
	}
	if most == 0 || math.IsInf(least, 1) {
		return 1, 10
	}
	low = math.Pow(10, math.Floor(math.Log10(least)))
	high = math.Pow(10, math.Ceil(math.Log10(most)))
	if high <= low {
		high = low * 10
	}
	return low, high
}

// tick labels a power of ten.
func tick(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%g ms", ms)
	}
	return fmt.Sprintf("%g s", ms/1000)
}
