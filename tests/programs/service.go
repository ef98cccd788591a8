// A Go service for the end-to-end tests: `service PORT UPSTREAM [quiet]`.
//
//	/c/…       passed on to the upstream, as net/http/httputil does it
//	/job/N     asks the upstream twice, one after the other, and once more from a goroutine: the request is told by the query
//
// Unless it is to be quiet, it also asks the upstream for /tick by itself, all the time.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"
)

func main() {
	port, upstream := os.Args[1], os.Args[2]
	target, err := url.Parse(upstream)
	if err != nil {
		panic(err)
	}
	ask := func(path string) {
		answer, err := http.Get(upstream + path)
		if err != nil {
			return
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	http.Handle("/c/", httputil.NewSingleHostReverseProxy(target))
	http.HandleFunc("/job/", func(w http.ResponseWriter, r *http.Request) {
		number := r.URL.Path[len("/job/"):]
		ask("/lookup/x/1/slow/5?of=" + number)
		var both sync.WaitGroup
		both.Add(1)
		go func() {
			ask("/store/x/1/slow/3?of=" + number)
			both.Done()
		}()
		ask("/lookup/x/1/slow/2?of=" + number)
		both.Wait()
		fmt.Fprintln(w, number)
	})
	if len(os.Args) < 4 {
		go func() {
			for range time.Tick(7 * time.Millisecond) {
				ask("/tick/x/1/bytes/9?of=none")
			}
		}()
	}
	panic(http.ListenAndServe("127.0.0.1:"+port, nil))
}
