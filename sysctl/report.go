package sysctl

import "fmt"

// State is what became of a setting.
type State string

// The states. In Held and Changed the setting serves.
const (
	Held      State = "held"      // found as wanted
	Changed   State = "changed"   // made so; the original is recorded
	Audited   State = "audited"   // not as wanted, and only looked at
	Refused   State = "refused"   // could not be read, or not be set: the report's problems say why
	Contested State = "contested" // set back again and again by somebody else, and for now left so
	Missing   State = "missing"   // the kernel has no such setting (now): module or device not there, or an older kernel
)

// Finding is one setting as it was last looked at.
type Finding struct {
	Key      string // as sysctl(8) prints it
	Have     string // "" where it is missing or cannot be read
	Want     string // in words
	Original string // what it was before the first change; only where State is Changed
	Why      string
	Severity
	State
	Set bool // the Keeper may set it
}

// Serves tells whether nobody need care: the value is as wanted, or what is only looked at is not there.
func (f Finding) Serves() bool {
	return f.State == Held || f.State == Changed || f.State == Missing && !f.Set
}

// String returns a sentence: "net.ipv4.vs.conntrack is 1, should be 0: connection tracking costs time, …".
func (f Finding) String() string {
	have := "is " + f.Have
	switch {
	case f.State == Missing:
		have = "is missing"
	case f.Have == "":
		have = "cannot be read"
	}
	return fmt.Sprintf("%s %s, should be %s: %s", f.Key, have, f.Want, f.Why)
}

// Change is a setting that was set or put back.
type Change struct{ Key, Old, New string } // Key as sysctl(8) prints it

// Left is a setting that was not put back, for somebody else has changed it since.
type Left struct{ Key, Have, Original string } // Key as sysctl(8) prints it

// String returns a sentence.
func (l Left) String() string {
	return fmt.Sprintf("%s is %s, which somebody else has made it, and is left so; it had been %s", l.Key, l.Have, l.Original)
}

// Report is what a round did, and how things stand after it.
type Report struct {
	Findings []Finding // in the order of the settings
	Changes  []Change  // what was set, and what was put back
	Left     []Left    // what was to be put back and was left
	Problems []string  // why settings are not set or not put back: one sentence for each reason
	Drifts   uint64    // how often, since the Keeper was made, a setting that had been as wanted was set again
}
