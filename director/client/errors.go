package client

import (
	"fmt"
	"time"
)

// Error is a director's refusal.
type Error struct {
	Status     int           // of HTTP
	Sentence   string        // what the director says about it, printable
	RetryAfter time.Duration // how long it asks to wait; 0: not said
}

// Error is the sentence with its status.
func (e *Error) Error() string {
	return fmt.Sprintf("the director answers %d: %s", e.Status, e.Sentence)
}
