// Command bench measures what a client sees of failovers in the lab, and shows what came of it.
package main

import (
	"errors"
	"fmt"
	"os"
)

const usage = `usage: bench COMMAND

on the nodes of the lab, started by failover.sh:
  serve NAME                     a web server on port 80 whose page is NAME, until a signal
  load [FLAGS] ADDRESS:PORT      new connections and long flows until a signal; prints what came of them as JSON
  holders ADDRESS                print when this node gets and loses an address

on what they printed:
  record [FLAGS]                 add one repetition to a file of measurements and print it
  report [FLAGS] MEASUREMENTS    print the table; write failover.json and failover.svg
  markdown FAILOVER.JSON         print the table for a README
`

var commands = map[string]func(args []string) error{
	"serve": serve, "load": runLoad, "holders": watchHolders,
	"record": record, "report": report, "markdown": markdown,
}

// errUsage is an error that the flag package has explained already.
var errUsage = errors.New("wrong usage")

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
