package unix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of one reading: what users can write is in it.
const (
	// mostKeys bounds a file of keys, mostListed a directory of a user's, mostOpen the files that are open at once, mostBytes all
	// that is read.
	mostKeys   = 1 << 20
	mostListed = 1000
	mostOpen   = 20_000
	mostBytes  = 64 << 20
)

// Gathered is every file that is to be read, open, and what was read already: the configuration, which root alone could have written.
// What users could have written has been opened and not looked into.
type Gathered struct {
	root     int
	snapshot *Snapshot
	open     map[string]*os.File
}

// Gather opens what only root reads of the machine below root: the shadow file, sudo's rules, sshd's configuration, and the files of
// keys of every account of /etc/passwd. It follows no symbolic link in a user's home and takes no file there that has other names, is
// another's, or isn't a file; of configuration, it reads what root alone can write. It needs the right to read everything, and Read
// needs none: between the two a process gives up all that it has.
func Gather(ctx context.Context, root string) (*Gathered, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	g := &Gathered{root: fd, open: map[string]*os.File{},
		snapshot: &Snapshot{Read: map[string]Content{}, Stat: map[string]About{}, Names: map[string]Listing{}}}
	m := newMachine(root)
	m.files = g
	// The graph is thrown away: what is wanted is what was looked at.
	if m.hostName, err = os.Hostname(); err != nil {
		return nil, err
	}
	m.fqdn = m.hostName
	scratch := newGraph(m.hostName, m)
	passwd, err := m.read("/etc/passwd")
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %s", why("/etc/passwd", err))
	}
	for _, line := range numbered(string(passwd)) {
		if a, err := parsePasswd(line); err == nil && m.byName[a.name] == nil {
			m.accounts = append(m.accounts, a)
			m.byName[a.name] = a
		}
	}
	// The worker asks the name service for accounts, which knows more than the file.
	delete(g.snapshot.Read, "/etc/passwd")
	g.later(shadowFile, fd, strings.TrimPrefix(shadowFile, "/"), nil)
	if _, err := m.stat("/etc/sudoers"); err == nil {
		readSudoFiles(m, scratch)
	}
	scratch.addDoors(m)
	patterns := m.keyFiles(scratch)
	for _, a := range m.accounts {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		g.account(a, patterns)
	}
	return g, nil
}

// account opens an account's files of keys.
func (g *Gathered) account(a *account, patterns []string) {
	home, homeErr := g.home(a)
	if homeErr == nil {
		defer unix.Close(home)
	}
	for _, pattern := range patterns {
		name := expandKeyFile(pattern, a)
		if name == "" {
			continue
		}
		rel, inHome := strings.CutPrefix(name, strings.TrimSuffix(path.Clean(a.home), "/")+"/")
		switch {
		case !inHome:
			g.later(name, g.root, strings.TrimPrefix(name, "/"), a)
		case homeErr != nil:
			g.snapshot.Read[name] = Content{Fault: faultOf(homeErr)}
		default:
			g.later(name, home, rel, a)
		}
	}
	if a.home == "" || a.home == "/" {
		return
	}
	dir := path.Join(a.home, ".ssh")
	names, err := []string(nil), homeErr
	if err == nil {
		names, err = g.list(home, ".ssh", a)
	}
	g.snapshot.Names[dir] = Listing{Names: names, Fault: faultOf(err)}
	for _, name := range names {
		private, isPublic := strings.CutSuffix(name, ".pub")
		if !isPublic {
			continue
		}
		// Of the private half there is only whether it is there.
		g.look(path.Join(dir, private), home, path.Join(".ssh", private), unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		g.later(path.Join(dir, name), home, path.Join(".ssh", name), a)
	}
}

// errOwner is that a file is another's, who could have put anything there.
var errOwner = errors.New("belongs neither to the account nor to root, so the machine reader does not read it")

// home opens an account's home, to walk from. A link may lead there, as one from /home to another disk does; whose it is decides.
func (g *Gathered) home(a *account) (int, error) {
	fd, err := g.openat(g.root, strings.TrimPrefix(path.Clean("/"+a.home), "/"), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if !owns(a, st.Uid) {
		return -1, errors.Join(errOwner, unix.Close(fd))
	}
	return fd, nil
}

func owns(a *account, uid uint32) bool { return uid == 0 || a != nil && uid == a.uid }

// openat opens a path below a directory. Nothing blocks, no terminal is taken, and no link of /proc is followed.
func (g *Gathered) openat(dir int, rel string, flags, resolve uint64) (int, error) {
	if rel == "" {
		rel = "."
	}
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	return unix.Openat2(dir, rel, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// later opens a file that is read when nothing else can be any more.
func (g *Gathered) later(name string, dir int, rel string, a *account) {
	if _, done := g.open[name]; done {
		return
	}
	f, err := g.openFile(dir, rel, a)
	if err != nil {
		g.snapshot.Read[name] = Content{Fault: faultOf(err)}
		return
	}
	g.open[name] = f
}

// openFile opens a regular file that has one name and belongs to root or the account. No symbolic link leads to it: who may write a
// directory above it could have made one.
func (g *Gathered) openFile(dir int, rel string, a *account) (*os.File, error) {
	if len(g.open) >= mostOpen {
		return nil, fmt.Errorf("there are more than %d files to read", mostOpen)
	}
	fd, err := g.openat(dir, rel, unix.O_RDONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ELOOP) {
		return nil, errors.New("is reached by a symbolic link, which the machine reader does not follow")
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), rel)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("not a regular file")
	case !owns(a, st.Uid):
		err = errOwner
	case st.Nlink > 1:
		err = errors.New("has other names, so the machine reader does not read it")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// list answers the names in a directory of a user's.
func (g *Gathered) list(dir int, rel string, a *account) ([]string, error) {
	fd, err := g.openat(dir, rel, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ELOOP) {
		return nil, errors.New("is a symbolic link, which the machine reader does not follow")
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), rel)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if !owns(a, st.Uid) {
		return nil, errOwner
	}
	names, err := f.Readdirnames(mostListed + 1)
	if len(names) > mostListed {
		return nil, fmt.Errorf("has more than %d files", mostListed)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// look notes what a path leads to.
func (g *Gathered) look(name string, dir int, rel string, resolve uint64) {
	fd, err := g.openat(dir, rel, unix.O_PATH, resolve)
	if err != nil {
		g.snapshot.Stat[name] = About{Fault: faultOf(err)}
		return
	}
	f := os.NewFile(uintptr(fd), rel)
	defer f.Close()
	about, err := f.Stat()
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		g.snapshot.Stat[name] = About{Fault: faultOf(err)}
		return
	}
	g.snapshot.Stat[name] = About{Mode: about.Mode(), UID: st.Uid, GID: st.Gid}
}

// read implements files, for configuration: what root alone can write is read at once, since it says what else there is.
func (g *Gathered) read(name string) ([]byte, error) {
	content, err := g.configuration(name)
	g.snapshot.Read[name] = Content{Bytes: content, Fault: faultOf(err)}
	return content, err
}

func (g *Gathered) configuration(name string) ([]byte, error) {
	if base := path.Base(name); strings.HasPrefix(base, "shadow") || strings.HasPrefix(base, "gshadow") {
		return nil, errors.New("holds passwords")
	}
	f, err := g.openFile(g.root, strings.TrimPrefix(path.Clean(name), "/"), nil)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	about, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if about.Mode().Perm()&0o002 != 0 {
		return nil, errors.New("can be written by anyone, so the machine reader does not read it")
	}
	return readRegular(f, mostKeys)
}

// stat implements files.
func (g *Gathered) stat(name string) (info, error) {
	g.look(name, g.root, strings.TrimPrefix(path.Clean(name), "/"), unix.RESOLVE_IN_ROOT)
	a := g.snapshot.Stat[name]
	if a.Fault != nil {
		return info{}, a.Fault
	}
	return info{mode: a.Mode, uid: a.UID, gid: a.GID}, nil
}

// readDir implements files.
func (g *Gathered) readDir(name string) ([]string, error) {
	names, err := g.list(g.root, strings.TrimPrefix(path.Clean(name), "/"), nil)
	g.snapshot.Names[name] = Listing{Names: names, Fault: faultOf(err)}
	return names, err
}

// Read reads what was opened, and closes it. It opens nothing.
func (g *Gathered) Read() (*Snapshot, error) {
	var all int64
	for name, f := range g.open {
		var content []byte
		var err error
		if name == shadowFile {
			content, err = readRegular(f, maxFile)
			content = withoutPasswords(content)
		} else {
			content, err = readRegular(f, mostKeys)
		}
		if all += int64(len(content)); all > mostBytes {
			content, err = nil, fmt.Errorf("there are more than %d bytes to read", mostBytes)
		}
		g.snapshot.Read[name] = Content{Bytes: content, Fault: faultOf(err)}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return g.snapshot, unix.Close(g.root)
}

// withoutPasswords is a shadow file that says of each password whether it is empty, locked or set.
func withoutPasswords(content []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(content) {
		fields := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		switch {
		case len(fields) != 9:
			// Where a password would stand in it nobody knows.
			out.WriteString("\n")
			continue
		case fields[1] == "":
		case fields[1][0] == '!' || fields[1][0] == '*':
			fields[1] = fields[1][:1]
		default:
			fields[1] = "set"
		}
		out.WriteString(strings.Join(fields, ":") + "\n")
	}
	return out.Bytes()
}
