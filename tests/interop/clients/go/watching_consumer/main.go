// watching_consumer prints the body of each message of a topic on a line of its own, until it is killed. contrib/watch-go
// keeps it connected; with -watch=false go-nsq's own polls do.
//
//	watching_consumer [-watch=false] [-poll=SECONDS] TOPIC LOOKUPD_HTTP_ADDRESS...
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/nsqio/go-nsq"
	watch "ringlookupd/contrib/watch-go"
)

func main() {
	watching := flag.Bool("watch", true, "watch")
	seconds := flag.Int("poll", 1, "seconds between two polls")
	flag.Parse()
	topic, lookupds := flag.Arg(0), flag.Args()[1:]
	poll := time.Duration(*seconds) * time.Second

	config := nsq.NewConfig()
	if !*watching {
		config.LookupdPollInterval = poll
	}
	config.MaxInFlight = 10
	// nsqd holds a message back for so long, in case that more follow.
	config.OutputBufferTimeout = 25 * time.Millisecond
	consumer, err := nsq.NewConsumer(topic, "archive", config)
	if err != nil {
		log.Fatal(err)
	}
	consumer.AddHandler(nsq.HandlerFunc(func(message *nsq.Message) error {
		fmt.Printf("%s\n", message.Body)
		return nil
	}))
	if *watching {
		log.Fatal(watch.Keep(context.Background(), consumer, topic, watch.Config{
			Lookups: lookupds, Grace: 2 * time.Second, Probe: time.Second, PollInterval: poll,
		}))
	}
	if err := consumer.ConnectToNSQLookupds(lookupds); err != nil {
		log.Fatal(err)
	}
	<-consumer.StopChan
}
