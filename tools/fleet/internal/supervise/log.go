package supervise

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"a3os.app/tools/fleet/internal/process"
)

const (
	// mostLog is the size at which a log is set aside, and keptLogs how many of those there are.
	mostLog  = 16 << 20
	keptLogs = 2
)

// logFile is a log that is set aside when it is full: name, name.1, name.2.
type logFile struct {
	mu   sync.Mutex
	path string
	most int64
	file *os.File
	size int64
}

func openLog(path string, most int64) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of logs: %w", err)
	}
	l := &logFile{path: path, most: most}
	return l, l.open()
}

func (l *logFile) open() error {
	// Never through a link: who may write in the directory is not who writes the file.
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("look at a log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write never fails for its caller: a full disk must not stop a process that only wants to tell something.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(p)) > l.most && l.size > 0 {
		l.rotate()
	}
	if l.file != nil {
		n, _ := l.file.Write(p)
		l.size += int64(n)
	}
	return len(p), nil
}

func (l *logFile) rotate() {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
	for n := keptLogs; n > 0; n-- {
		from := l.path
		if n > 1 {
			from = fmt.Sprintf("%s.%d", l.path, n-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", l.path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err := l.open(); err != nil {
		l.file, l.size = nil, 0
	}
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// lastWords is what the process said last into a log, cut short.
func lastWords(path string) string {
	const stacks, most = 256 << 10, 2 << 10
	f, err := os.Open(path)
	if err != nil {
		return "(unreadable)"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > stacks {
		_, _ = f.Seek(-stacks, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	said := process.LastWords(string(text))
	return said[:min(most, len(said))]
}
