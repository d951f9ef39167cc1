// Package election decides which director of a pair holds the VIPs.
//
// It is a pure state machine: Step takes the machine, an event and the time,
// and gives back the machine that follows and what has to be done. It opens no
// socket, reads no clock and starts no goroutine, so a simulation can drive
// two of them through any weather.
package election

import "fmt"

// Role is what a director is at the moment.
type Role uint8

// The roles. The zero value is Standby: a director that knows nothing yet
// holds nothing.
const (
	Standby    Role = iota // hears the active director, or waits to
	Confirming             // about to claim; asks whether anybody holds a VIP
	Active                 // holds the VIPs
	Fault                  // must not hold the VIPs: link down, isolated, or the kernel refused
)

var roleNames = [...]string{"standby", "confirming", "active", "fault"}

// Valid reports whether r is one of the four roles.
func (r Role) Valid() bool { return int(r) < len(roleNames) }

func (r Role) String() string {
	if !r.Valid() {
		return fmt.Sprintf("role(%d)", uint8(r))
	}
	return roleNames[r]
}

// MarshalText writes the role as its name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a role's name.
func (r *Role) UnmarshalText(text []byte) error {
	for i, name := range roleNames {
		if name == string(text) {
			*r = Role(i)
			return nil
		}
	}
	return fmt.Errorf("role %q: not one of standby, confirming, active, fault", text)
}
