package trust

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// The bounds of Claims.
const (
	MaxName      = 253 // bytes of a real server's or service's name, as of a DNS name
	MaxServices  = 64  // services of one token
	MaxAddresses = 16  // addresses of one token
)

// Claims is what a token allows: one real server, from these addresses, into
// these services.
type Claims struct {
	Name      string       // the real server's name
	Addresses []netip.Addr // its RIPs, any of which may register
	Services  []string     // the virtual services it may join, by name
}

// Validate returns every fault of c, none when it is sound.
func (c Claims) Validate() []error {
	var errs []error
	if err := CheckName(c.Name); err != nil {
		errs = append(errs, fmt.Errorf("name: %w", err))
	}
	if n := len(c.Addresses); n < 1 || n > MaxAddresses {
		errs = append(errs, fmt.Errorf("addresses: %d given, want 1 to %d", n, MaxAddresses))
	}
	for i, a := range c.Addresses {
		if err := CheckAddress(a); err != nil {
			errs = append(errs, fmt.Errorf("address: %w", err))
		}
		if slices.Contains(c.Addresses[:i], a) {
			errs = append(errs, fmt.Errorf("address %s is given twice", a))
		}
	}
	if n := len(c.Services); n < 1 || n > MaxServices {
		errs = append(errs, fmt.Errorf("services: %d given, want 1 to %d", n, MaxServices))
	}
	for i, s := range c.Services {
		if err := CheckName(s); err != nil {
			errs = append(errs, fmt.Errorf("service: %w", err))
		}
		if slices.Contains(c.Services[:i], s) {
			errs = append(errs, fmt.Errorf("service %q is given twice", s))
		}
	}
	return errs
}

// CheckName faults a name of a real server or service that is not 1 to MaxName
// letters, digits, dots, hyphens and underscores of ASCII: a name stands in
// URLs, logs, metrics and terminals.
func CheckName(s string) error {
	if len(s) < 1 || len(s) > MaxName {
		return fmt.Errorf("%d bytes long, want 1 to %d", len(s), MaxName)
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return fmt.Errorf("%q holds %q; letters, digits, '.', '-' and '_' are allowed", s, c)
		}
	}
	if s == "." || s == ".." { // a path in a URL would be cleaned of it
		return fmt.Errorf("%q is not a name", s)
	}
	return nil
}

// CheckAddress faults what cannot be one host's address: none, a wildcard,
// multicast, broadcast, one with a zone, an IPv4 address written as IPv6.
func CheckAddress(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("no address given")
	case a.IsUnspecified():
		return fmt.Errorf("%s is a wildcard: name the real server's own address", a)
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is not the address of one host", a)
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone: name an address that means the same on every host", a)
	case a.Is4In6():
		return fmt.Errorf("%s: write it as %s", a, a.Unmap())
	}
	return nil
}
