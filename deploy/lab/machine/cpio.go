package machine

import (
	"fmt"
	"io"
)

// cpio writes an archive in the newc form, which is what the kernel takes as an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	w     io.Writer
	inode int
	err   error // the first failure; nothing is written after it
}

// Modes of cpio entries (stat(2)).
const (
	modeDir  = 0o040755
	modeFile = 0o100755
)

func (c *cpio) dir(name string) { c.entry(name, modeDir, nil) }

func (c *cpio) file(name string, content []byte) { c.entry(name, modeFile, content) }

// close writes the trailer and returns the first failure.
func (c *cpio) close() error {
	c.inode = -1 // the trailer's is 0
	c.entry("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpio) entry(name string, mode int, content []byte) {
	c.inode++
	links := 1
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	c.padded([]byte(head))
	c.padded(content)
}

// padded writes p and fills up to a multiple of 4 bytes.
func (c *cpio) padded(p []byte) {
	if c.err != nil {
		return
	}
	for len(p)%4 != 0 {
		p = append(p[:len(p):len(p)], 0)
	}
	_, c.err = c.w.Write(p)
}
