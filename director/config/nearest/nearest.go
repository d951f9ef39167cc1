// Package nearest helps with a word that a file's reader does not know.
package nearest

import "strings"

// Hint names the known word nearest to one that is unknown, or all of them.
func Hint(unknown string, known []string) string {
	unknown = unknown[:min(len(unknown), 64)]
	best, least := "", 1+min(len(unknown), 32)/3
	for _, k := range known {
		if d := distance(strings.ToLower(unknown), k); d <= least {
			best, least = k, d-1
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "known here are " + strings.Join(known, ", ")
}

// distance is how many letters must be put in, taken out or replaced to turn a into b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
