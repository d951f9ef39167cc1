package script

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bash runs a script whose lab prints its arguments and, for `on X CMD…`, runs the command here.
func bash(t *testing.T, ctx context.Context, script string, args ...string) (status int, out, errOut string) {
	t.Helper()
	dir := t.TempDir()
	lab := filepath.Join(dir, "lab")
	write(t, lab, 0o755, "#!/bin/sh\ncase $1 in on) shift 2; exec \"$@\";; *) echo lab \"$@\";; esac\n")
	path := filepath.Join(dir, "s.sh")
	write(t, path, 0o644, script)
	var o, e bytes.Buffer
	status, err := Run(ctx, dir, path, args, []string{"PATH=/usr/bin:/bin", "LAB=" + lab, "COUNT=" + filepath.Join(dir, "count")}, &o, &e)
	if err != nil {
		t.Fatal(err)
	}
	return status, o.String(), strings.ReplaceAll(e.String(), dir+"/", "")
}

func write(t *testing.T, path string, mode os.FileMode, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	tests := []struct {
		name, script string
		status       int
		out, errOut  string
	}{
		{"verbs", "start a web x y\nstop a web INT\ncut a eth0\nheal a\ncrash a\nboot a\nnodes director\ncluster", 0,
			"lab start a web x y\nlab stop a web INT\nlab cut a eth0\nlab heal a\nlab crash a\nlab boot a\nlab nodes director\nlab cluster\n", ""},
		{"quoting", `on a printf '<%s>' 'b  c' '' "d
e"`, 0, "<b  c><><d\ne>", ""},
		{"the line that failed", "true\n  on a sh -c 'exit 3'\necho never", 3, "", "s.sh:2: failed with status 3: on a sh -c 'exit 3'\n"},
		{"in a function of the script", "f() {\n  false\n}\nf", 1, "", "s.sh:2: failed with status 1: false\n"},
		{"in a pipeline", "false | cat", 1, "", "s.sh:1: failed with status 1: false | cat\n"},
		{"in a substitution", "x=$(on a false)\necho never", 1, "", "s.sh:1: failed with status 1: x=$(on a false)\n"},
		{"unset variable", "echo $nothing", 1, "", "s.sh: line 1: nothing: unbound variable\n"},
		{"exit is no failure of a line", "exit 4", 4, "", ""},
		{"children have plain bash", "bash -c 'false; echo on: $(type -t on)'", 0, "on:\n", ""},
		{"wait_for succeeds at last", `wait_for 5 sh -c 'echo x >>"$COUNT"; [ $(wc -l <"$COUNT") -ge 3 ]'; wc -l <"$COUNT"`, 0, "3\n", ""},
		{"wait_for takes functions", "f() { [ $1 = b ]; }\nwait_for 1 f b && echo good", 0, "good\n", ""},
		{"wait_for gives up", "wait_for 0 sh -c 'echo not yet; exit 9'", 1, "",
			"wait_for: still failing after 0 s: sh -c echo not yet; exit 9\nit last said: not yet\n" +
				"s.sh:1: failed with status 1: wait_for 0 sh -c 'echo not yet; exit 9'\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, out, errOut := bash(t, t.Context(), tt.script)
			if status != tt.status || out != tt.out || errOut != tt.errOut {
				t.Errorf("status %d, output %q, errors\n%q\nwant %d, %q,\n%q", status, out, errOut, tt.status, tt.out, tt.errOut)
			}
		})
	}
}

func TestRunArguments(t *testing.T) {
	if _, out, _ := bash(t, t.Context(), `echo "$# $1 $2"`, "a b", "c"); out != "2 a b c\n" {
		t.Errorf("output %q", out)
	}
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	status, out, _ := bash(t, ctx, "trap 'echo cleaned; exit' TERM\nsleep 1000 & wait")
	if status != 130 || out != "cleaned\n" || time.Since(began) > grace {
		t.Errorf("status %d, output %q after %s", status, out, time.Since(began))
	}
}

func TestTails(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.x.log"), 0o644, "one\ntwo\n")
	write(t, filepath.Join(dir, "b.y.log"), 0o644, strings.Repeat("no\n", 10)+strings.Repeat("yes\n", tail))
	write(t, filepath.Join(dir, "notes.txt"), 0o644, "not a log\n")
	var b bytes.Buffer
	Tails(&b, dir)
	want := "--- a.x.log\none\ntwo\n--- b.y.log (the last 20 of 30 lines)\n" + strings.Repeat("yes\n", tail)
	if b.String() != want {
		t.Errorf("Tails:\n%s\nwant:\n%s", &b, want)
	}
}
