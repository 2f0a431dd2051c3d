package unix

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// maxIncludes is how deep sudo follows includes.
const maxIncludes = 128

// markPrefix begins the user name of the rules that are put between the lines to learn which rule stands on which line; sudo's
// parser tells no lines.
const markPrefix = "a3-line-"

// sudoLine is a line of the rules with includes resolved.
type sudoLine struct {
	file   string
	number int
	text   string
	// first says that the line doesn't continue the one before.
	first bool
}

func (l sudoLine) at() string { return fmt.Sprintf("%s:%d", l.file, l.number) }

// sudoFiles puts /etc/sudoers and what it includes together, as sudo does: files of a directory in the order of their names
// without those that end in ~ or hold a dot, and no file that another than the owner of the machine's root could have written.
type sudoFiles struct {
	machine *machine
	graph   *graph
	owner   uint32
	lines   []sudoLine
	reading []string
}

// readSudoFiles answers the lines, or nil where sudo isn't set up.
func readSudoFiles(m *machine, g *graph) []sudoLine {
	f := &sudoFiles{machine: m, graph: g}
	if info, err := os.Stat(m.root); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			f.owner = stat.Uid
		}
	}
	f.file("/etc/sudoers")
	return f.lines
}

var includeLine = regexp.MustCompile(`^\s*(@include|@includedir|#include|#includedir)\s+(.+?)\s*$`)

func (f *sudoFiles) file(name string) {
	if len(f.reading) > maxIncludes || slices.Contains(f.reading, name) {
		f.graph.gap(ScopeSudoers, fmt.Sprintf("%s: includes itself or is included too deep", name))
		return
	}
	info, err := f.machine.stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.graph.gap(ScopeSudoers, why(name, err))
		return
	}
	if !f.trusted(info) {
		// sudo takes nothing from such a file, so it gives no access.
		return
	}
	content, err := f.machine.read(name)
	if err != nil {
		f.graph.gap(ScopeSudoers, why(name, err))
		return
	}
	f.reading = append(f.reading, name)
	defer func() { f.reading = f.reading[:len(f.reading)-1] }()
	first, number := true, 0
	for line := range strings.Lines(strings.TrimPrefix(string(content), "\uFEFF")) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if word := includeLine.FindStringSubmatch(line); first && word != nil && (line[0] == '#' || strings.Contains(word[1], "@")) {
			f.include(word[1][1:], word[2], name)
			continue
		}
		f.lines = append(f.lines, sudoLine{file: name, number: number, text: line, first: first})
		comment := strings.HasPrefix(strings.TrimSpace(line), "#") && first
		first = comment || !strings.HasSuffix(strings.TrimRight(line, " \t"), `\`)
	}
	if !first {
		// A continuation at the end of a file must not run on into the next one.
		f.lines = append(f.lines, sudoLine{file: name, number: number, text: ""})
	}
}

// include follows an include line of a file.
func (f *sudoFiles) include(word, target, from string) {
	if len(target) > 1 && target[0] == '"' && strings.HasSuffix(target, `"`) {
		target = target[1 : len(target)-1]
	}
	target = strings.NewReplacer(`\ `, " ", "%h", shortName(f.machine.fqdn)).Replace(target)
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(from), target)
	}
	if word == "include" {
		f.file(target)
		return
	}
	info, err := f.machine.stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.graph.gap(ScopeSudoers, why(target, err))
		return
	}
	if !info.mode.IsDir() || !f.trusted(info) {
		return
	}
	names, err := f.machine.readDir(target)
	if err != nil {
		f.graph.gap(ScopeSudoers, why(target, err))
		return
	}
	for _, name := range names {
		if strings.HasSuffix(name, "~") || strings.Contains(name, ".") {
			continue
		}
		path := filepath.Join(target, name)
		if info, err := f.machine.stat(path); err == nil && info.mode.IsRegular() {
			f.file(path)
		}
	}
}

// trusted says that sudo would read a file or directory: its owner is the machine's, nobody else can write it.
func (f *sudoFiles) trusted(info info) bool {
	return info.uid == f.owner && info.mode.Perm()&0o002 == 0 && (info.mode.Perm()&0o020 == 0 || info.gid == 0)
}

// shortName is a host name up to its first dot.
func shortName(name string) string {
	short, _, _ := strings.Cut(name, ".")
	return short
}

// text is the lines for sudo's parser; marked puts before every line that begins something a rule that names it.
func text(lines []sudoLine, marked bool) []byte {
	var b strings.Builder
	for i, line := range lines {
		if marked && line.first {
			fmt.Fprintf(&b, "%s%d ALL = /a3/line\n", markPrefix, i)
		}
		b.WriteString(line.text)
		b.WriteByte('\n')
	}
	return []byte(b.String())
}
