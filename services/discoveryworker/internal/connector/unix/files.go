package unix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile bounds what is read of one file; accounts can write their own authorized_keys.
const maxFile = 16 << 20

// files is how the files of a machine are read. Names are absolute paths of the machine.
type files interface {
	// read answers the content of a regular file.
	read(name string) ([]byte, error)
	// stat says what a path leads to.
	stat(name string) (info, error)
	// readDir answers the names in a directory, sorted.
	readDir(name string) ([]string, error)
}

// info is what of a file decides about access.
type info struct {
	mode     fs.FileMode
	uid, gid uint32
}

// disk is a machine's files below a root of this process's own file system, read with this process's own rights.
type disk struct{ root string }

func (d disk) path(name string) string { return filepath.Join(d.root, name) }

// read never blocks on a pipe that somebody put where a file is expected.
func (d disk) read(name string) ([]byte, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, maxFile)
}

// readRegular answers what an open file holds, up to a bound.
func readRegular(f *os.File, most int64) ([]byte, error) {
	about, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !about.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("longer than %d bytes", most)
	}
	return content, nil
}

func (d disk) stat(name string) (info, error) {
	about, err := os.Stat(d.path(name))
	if err != nil {
		return info{}, err
	}
	st, ok := about.Sys().(*syscall.Stat_t)
	if !ok {
		return info{}, errors.New("this system tells no owners")
	}
	return info{mode: about.Mode(), uid: st.Uid, gid: st.Gid}, nil
}

func (d disk) readDir(name string) ([]string, error) {
	entries, err := os.ReadDir(d.path(name))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}
