package pair

import "sync"

// roles tells the rest of the director every role taken, in order, on a
// goroutine that may be held up without hurting the loop.
type roles struct {
	tell func(Role)
	wake chan struct{}

	mu    sync.Mutex // guards what follows
	queue []Role
	ended bool
}

func newRoles(tell func(Role)) *roles {
	return &roles{tell: tell, wake: make(chan struct{}, 1)}
}

func (r *roles) add(role Role) {
	r.mu.Lock()
	r.queue = append(r.queue, role)
	r.mu.Unlock()
	r.signal()
}

// end lets run return when it has told what was added.
func (r *roles) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.signal()
}

func (r *roles) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *roles) run() {
	for range r.wake {
		r.mu.Lock()
		queue, ended := r.queue, r.ended
		r.queue = nil
		r.mu.Unlock()
		if r.tell != nil {
			for _, role := range queue {
				r.tell(role)
			}
		}
		if ended {
			return
		}
	}
}
