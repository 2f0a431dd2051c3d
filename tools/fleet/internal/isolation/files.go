package isolation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// openAs opens a file, or lists a directory, as a user of the machine; nil is this process's own user.
func openAs(user *User, path string) error {
	open := func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if user == nil {
		return open()
	}
	return asUser(*user, open)
}

// separated says whether a component runs as a user who is neither root nor this process's own.
func separated(c *Component) bool {
	return c.User != nil && c.User.UID != 0 && c.User.UID != os.Geteuid() && os.Geteuid() == 0
}

// tryFiles opens files as a component. Where it runs as the user that all do, the file's mode is what can be looked at.
func tryFiles(c *Component, files []File) ask {
	return func(context.Context) answer {
		var found []string
		for _, f := range files {
			switch err := reach(c, f.Path); {
			case err == nil:
				found = append(found, f.What)
			case !errors.Is(err, fs.ErrPermission):
				return unclearWith("%s: %v", f.What, err)
			}
		}
		if len(found) > 0 {
			return openedWith("it opens %s", some(found))
		}
		if !separated(c) {
			return refusedWith("%d files, each closed to other users by its mode", len(files))
		}
		return refusedWith("%d files, each: permission denied to uid %d", len(files), c.User.UID)
	}
}

func reach(c *Component, path string) error {
	if separated(c) {
		return openAs(c.User, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	const others = 0o007
	if info.Mode().Perm()&others != 0 {
		return nil
	}
	return fs.ErrPermission
}

// holdersOpen is the control: each file is opened by one that may, or by the provisioner where none does.
func holdersOpen(s *Set, files []File) *control {
	what := "the components that need them, and the provisioner for the rest"
	return &control{what: what, ask: func(context.Context) answer {
		for _, f := range files {
			var user *User
			for _, c := range s.componentsOf(f) {
				if separated(c) {
					user = c.User
					break
				}
			}
			if err := openAs(user, f.Path); err != nil {
				return unclearWith("%s: %v", f.What, err)
			}
		}
		return openedWith("%d files opened", len(files))
	}}
}

func (s *Set) componentsOf(f File) []*Component {
	var out []*Component
	for _, c := range s.Components {
		if slices.Contains(f.Holders, c.Name) {
			out = append(out, c)
		}
	}
	return out
}

// filesOfOther are the files of one set, tried by every component of another.
func (w *World) filesOfOther(from, at *Set) []attempt {
	return foreignFiles(from, at, at.Files, "files of "+at.Name(), "open every file of the other set: keys, passwords, certificates, stores")
}

// planeFiles are the plane's own.
func (w *World) planeFiles(from *Set) []attempt {
	return foreignFiles(from, from, w.Files, "files of the plane", "open the plane's own keys, passwords and certificates")
}

func foreignFiles(from, at *Set, files []File, where, what string) []attempt {
	if len(files) == 0 {
		return nil
	}
	ctl := holdersOpen(at, files)
	var out []attempt
	for _, c := range from.Components {
		out = append(out, attempt{wall: wallFiles, from: from.Name() + "/" + c.Name, at: where, what: what, ask: tryFiles(c, files), control: ctl})
	}
	return out
}

// siblingFiles are the files of a set's own that a component does not need.
func (w *World) siblingFiles(s *Set) []attempt {
	var out []attempt
	for _, c := range s.Components {
		var others []File
		for _, f := range s.Files {
			if !slices.Contains(f.Holders, c.Name) {
				others = append(others, f)
			}
		}
		if len(others) > 0 {
			out = append(out, attempt{wall: wallFiles, from: s.Name() + "/" + c.Name, at: "files of " + s.Name(), what: fmt.Sprintf("open %d files of its siblings", len(others)),
				ask: tryFiles(c, others), control: holdersOpen(s, others)})
		}
	}
	return out
}
