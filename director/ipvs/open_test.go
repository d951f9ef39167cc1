package ipvs

import (
	"errors"
	"testing"
)

// On a kernel without IPVS the one sentence that helps; on others a handle.
func TestOpen(t *testing.T) {
	h, err := Open()
	switch {
	case err == nil:
		h.Close()
	case !errors.Is(err, ErrNoModule) || err.Error() != "open IPVS: "+ErrNoModule.Error():
		t.Error(err)
	}
}
