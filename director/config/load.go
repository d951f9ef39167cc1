package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxSize bounds a file, in bytes. Thirty-seven thousand servers take about four million.
const maxSize = 16 << 20

const emptyFile = "the file is empty: it needs at least one service"

// The formats of Options.
const (
	FormatYAML  = "yaml"
	FormatLvsCf = "lvs.cf"
)

// Options say how a file is read.
type Options struct {
	// Format is FormatYAML or FormatLvsCf. Empty means lvs.cf for a file called lvs.cf or *.lvs.cf, YAML for any other.
	Format string
}

// Load reads and validates the file at path. The problems it returns beside a Config are warnings; a file that was
// refused is an *Invalid, which holds errors and warnings. LVSTUN_NAME and LVSTUN_CLUSTER_KEY_FILE in the environment
// override what the file says.
func Load(path string, opt Options) (*Config, []Problem, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, data, opt)
}

// Parse is Load for a file that has been read; path is what its problems say and what its format is known by.
func Parse(path string, data []byte, opt Options) (*Config, []Problem, error) {
	read := readYAML
	switch format(path, opt) {
	case FormatYAML:
	case FormatLvsCf:
		read = readLvsCf
	default:
		return nil, nil, fmt.Errorf("%s: format %q: must be %s or %s", path, opt.Format, FormatYAML, FormatLvsCf)
	}
	found := &findings{file: path, broken: make(map[string]bool)}
	var raw *file
	switch {
	case len(data) > maxSize:
		found.add(Problem{Why: fmt.Sprintf("the file is larger than %d MiB", maxSize>>20)})
	case len(bytes.TrimSpace(data)) == 0:
		found.add(Problem{Why: emptyFile})
	default:
		raw = read(data, found)
	}
	if raw != nil {
		raw.validate(found)
	}
	warnings, err := found.result()
	if err != nil {
		return nil, nil, err
	}
	cfg, err := raw.build(path)
	if err != nil {
		return nil, nil, err
	}
	return cfg, warnings, nil
}

func format(path string, opt Options) string {
	base := filepath.Base(path)
	switch {
	case opt.Format != "":
		return opt.Format
	case base == "lvs.cf", strings.HasSuffix(base, ".lvs.cf"):
		return FormatLvsCf
	}
	return FormatYAML
}
