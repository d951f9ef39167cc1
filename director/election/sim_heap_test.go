package election

import "time"

// heap orders items by time, and by when they were put in. What moves in it
// is small and holds no pointer; the items stay where they are.
type heap struct {
	slots []slot
	order uint64
	items []item
	free  []int32
}

type slot struct {
	at    time.Duration
	order uint64
	item  int32
}

func (h *heap) len() int { return len(h.slots) }

// first is when the next item is due.
func (h *heap) first() time.Duration { return h.slots[0].at }

func (h *heap) less(i, j int) bool {
	a, b := &h.slots[i], &h.slots[j]
	return a.at < b.at || a.at == b.at && a.order < b.order
}

func (h *heap) push(it item) {
	h.order++
	if n := len(h.free); n > 0 {
		h.slots = append(h.slots, slot{it.at, h.order, h.free[n-1]})
		h.items[h.free[n-1]] = it
		h.free = h.free[:n-1]
	} else {
		h.slots = append(h.slots, slot{it.at, h.order, int32(len(h.items))})
		h.items = append(h.items, it)
	}
	for i := len(h.slots) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			break
		}
		h.slots[i], h.slots[parent] = h.slots[parent], h.slots[i]
		i = parent
	}
}

func (h *heap) pop() item {
	top := h.slots[0].item
	last := len(h.slots) - 1
	h.slots[0] = h.slots[last]
	h.slots = h.slots[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			break
		}
		h.slots[i], h.slots[child] = h.slots[child], h.slots[i]
		i = child
	}
	h.free = append(h.free, top)
	return h.items[top]
}
