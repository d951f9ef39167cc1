// Package sysctl keeps kernel settings as they are wanted, and puts back what it found. A Keeper looks at every setting
// in rounds: it sets what does not serve after it has recorded the original in a file, repairs what somebody else has
// changed, gives way to who changes it again and again, and says what it cannot do. Restore undoes without a Keeper
// what one has left, after a crash too.
package sysctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Severity says what a value that does not serve costs.
type Severity string

// The severities.
const (
	Loss   Severity = "loss"   // clients lose flows or the service, at the latest when something else fails
	Advice Severity = "advice" // works, but worse than it could, or not in every network
)

// Rule says how a value is compared with the wanted one.
type Rule string

// The rules.
const (
	Exactly Rule = "exactly"
	AtLeast Rule = "at least" // numbers; for settings of one number
)

// Setting is one kernel setting as it is wanted.
type Setting struct {
	// Key in either of sysctl(8)'s forms: with slashes, dots are part of a name (net/ipv4/conf/eth0.100/arp_ignore);
	// with dots, slashes stand for dots in a name. Which form it is the first separator tells. A Keeper takes only
	// what is below net.
	Key string

	// With is a second key, for settings that are only looked at: the kernel takes the larger of the two, as it does
	// of conf/all and of the device (IN_DEV_MAXCONF and IN_DEV_ORCONF in linux/inetdevice.h).
	With string

	Rule  Rule   // of Value; "" is Exactly
	Value string // one number, or several with a space between
	Or    []string
	Why   string // a sentence, with its source
	Severity

	// Set tells that a Keeper may set it; else it is only looked at.
	Set bool
}

// serves tells whether a host with the value have is as the setting wants it.
func (s Setting) serves(have string) bool {
	if have == s.Value || slices.Contains(s.Or, have) {
		return true
	}
	if s.Rule != AtLeast {
		return false
	}
	least, err := strconv.ParseInt(s.Value, 10, 64)
	number, err2 := strconv.ParseInt(have, 10, 64)
	return err == nil && err2 == nil && number >= least
}

// Want is the wanted value in words: "1", "3 or 2", "at least 2048".
func (s Setting) Want() string {
	if s.Rule == AtLeast {
		return fmt.Sprintf("%s %s", AtLeast, s.Value)
	}
	return strings.Join(append([]string{s.Value}, s.Or...), " or ")
}

// larger returns the larger of two numbers without a sign.
func larger(a, b string) string {
	if len(a) > len(b) || len(a) == len(b) && a > b {
		return a
	}
	return b
}

// slashed returns key as a path below /proc/sys.
func slashed(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		return swapped.Replace(key)
	}
	return key
}

// dotted returns key as sysctl(8) prints it.
func dotted(key string) string { return swapped.Replace(slashed(key)) }

var swapped = strings.NewReplacer(".", "/", "/", ".")
