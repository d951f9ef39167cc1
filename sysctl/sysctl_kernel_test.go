//go:build kernel

package sysctl

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestApplyToTheKernel(t *testing.T) {
	key := "net/ipv4/conf/all/rp_filter"
	if _, err := Proc.Apply(t.Context(), []Setting{{Key: key, Value: 1}}); err != nil {
		t.Fatal(err)
	}
	desired := []Setting{{Key: key, Value: 2}}
	report, err := Proc.Apply(t.Context(), desired)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Change{{key, 1, 2}}, report.Changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if report, err = Proc.Apply(t.Context(), desired); err != nil || len(report.Changes) != 0 {
		t.Errorf("a second Apply: %v, %v", report.Changes, err)
	}
}
