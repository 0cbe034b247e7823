"""How people ask: templates for every kind of item, topics with the headings that answer them, and what goes around."""

ABOUT_ITEM = [
    "What does `{n}` do?", "What does {n} do?", "Explain `{n}`.", "Tell me about `{n}`.", "How does `{n}` work?",
    "How do I use `{n}`?", "When should I use `{n}`?", "What is `{n}`?", "what is {n}", "{n}", "explain {n}",
    "What can I do with `{n}`?", "Can you explain {n}?", "Describe `{n}` in Rust.", "What is {n} for?",
]
ABOUT_TYPE = [
    "What is `{n}`?", "What is {n}?", "Tell me about {n}", "Tell me about `{n}`.", "Explain {n}.", "Explain `{n}` in Rust.",
    "What is {n} in Rust?", "what is a {n}", "Describe {n}.", "When should I use {n}?", "How does {n} work?", "{n}",
    "How do I use {n}?", "Write about {n}.", "Can you explain `{n}`?", "What is a `{n}` good for?",
]
ABOUT_MODULE = [
    "What is the `{n}` module for?", "Tell me about the {n} module.", "Explain the `{n}` module.", "What is in `std::{n}`?",
    "What is {n}?", "Tell me about {n}", "How do I use {n} in Rust?", "Write about {n}.", "Explain {n}.",
]
ABOUT_TOPIC = [
    "Tell me about {n}.", "Tell me about {n}", "Explain {n}.", "Explain {n}", "Can you explain {n}?", "What should I know about {n}?",
    "Write about {n}.", "Write a short text about {n}.", "{n}", "Describe {n}.", "Give me an introduction to {n}.", "Teach me about {n}.",
    "What can you tell me about {n}?", "I want to learn about {n}.", "What is {n}?", "How does {n} work in Rust?",
]
ABOUT_ERROR = [
    "What does error {n} mean?", "What is {n}?", "Explain error {n}.", "How do I fix {n}?", "Why do I get error {n}?",
    "rustc --explain {n}", "I get error[{n}]. What should I do?",
]
ABOUT_WORD = [
    "Tell me about {n}.", "What about {n}?", "Write something about {n}.", "What do you know about {n}?", "Explain {n}.",
    "How do I use {n}?", "I have a question about {n}.", "Tell me more about {n}.", "How does {n} work?",
]
TOPICS = {  # what people ask about -> headings of the books that answer it
    "ownership": ["What Is Ownership?", "Ownership Rules", "Ownership and Functions", "Memory and Allocation"],
    "borrowing": ["References and Borrowing", "Mutable References", "Borrowing"],
    "references": ["References and Borrowing", "Mutable References"],
    "the borrow checker": ["The Borrow Checker", "References and Borrowing"],
    "lifetimes": ["Validating References with Lifetimes", "Lifetime Annotation Syntax", "Lifetime Elision", "Lifetimes"],
    "the stack and the heap": ["The Stack and the Heap"], "memory": ["Memory and Allocation", "The Stack and the Heap"],
    "memory management": ["What Is Ownership?", "Memory and Allocation"], "memory safety": ["What Is Ownership?"],
    "variables": ["Variables and Mutability", "Storing Values with Variables"], "mutability": ["Variables and Mutability"],
    "constants": ["Declaring Constants"], "shadowing": ["Shadowing"], "functions": ["Functions", "Parameters"],
    "integers": ["Integer Types"], "integer overflow": ["Integer Overflow"], "tuples": ["The Tuple Type"], "arrays": ["The Array Type"],
    "structs": ["Defining and Instantiating Structs"], "enums": ["Defining an Enum", "Enum Values"], "methods": ["Method Syntax"],
    "slices": ["The Slice Type", "String Slices"], "strings": ["The `String` Type", "Strings", "Creating a New String"],
    "pattern matching": ["The `match` Control Flow Construct", "Patterns and Matching"], "match": ["The `match` Control Flow Construct"],
    "modules": ["Grouping Related Code in Modules", "Packages, Crates, and Modules"], "crates": ["Packages and Crates", "Crates"],
    "vectors": ["Reading Elements of Vectors", "Vectors"], "collections": ["Common Collections"],
    "hash maps": ["Storing Keys with Associated Values in Hash Maps"], "error handling": ["Error Handling", "Guidelines for Error Handling"],
    "errors": ["Recoverable Errors with `Result`", "Propagating Errors"], "panics": ["To `panic!` or Not to `panic!`"],
    "the question mark operator": ["The `?` Operator Shortcut", "Where to Use the `?` Operator"], "Result": ["Recoverable Errors with `Result`"],
    "Option": ["The `Option` Enum"], "generics": ["Generic Types, Traits, and Lifetimes", "Performance of Code Using Generics", "Generics"],
    "traits": ["Defining a Trait", "Implementing a Trait on a Type", "Traits"], "tests": ["Writing Automated Tests", "Testing"],
    "closures": ["Capturing the Environment", "Closures", "Capturing References or Moving Ownership"],
    "iterators": ["Processing a Series of Items with Iterators", "The `Iterator` Trait and the `next` Method", "Iterators"],
    "smart pointers": ["Smart Pointers"], "Box": ["Using `Box<T>` to Point to Data on the Heap"],
    "reference counting": ["`Rc<T>`, the Reference-Counted Smart Pointer"], "Rc": ["`Rc<T>`, the Reference-Counted Smart Pointer"],
    "Arc": ["Atomic Reference Counting with `Arc<T>`", "Arc"], "Mutex": ["Controlling Access with Mutexes", "The API of `Mutex<T>`"],
    "concurrency": ["Fearless Concurrency", "Parallelism and Concurrency"], "threads": ["Using Threads to Run Code Simultaneously", "Threads"],
    "channels": ["Transfer Data Between Threads with Message Passing"], "parallelism": ["Parallelism and Concurrency"],
    "async": ["Fundamentals of Asynchronous Programming: Async, Await, Futures, and Streams", "Futures and the Async Syntax"],
    "async and await": ["Futures and the Async Syntax"], "futures": ["The `Future` Trait", "Futures and the Async Syntax"],
    "streams": ["Streams: Futures in Sequence", "The `Stream` Trait"], "Pin": ["The `Pin` Type and the `Unpin` Trait"],
    "object-oriented programming": ["Implementing an Object-Oriented Design Pattern", "Encapsulation That Hides Implementation Details"],
    "polymorphism": ["Polymorphism"], "inheritance": ["Inheritance as a Type System and as Code Sharing"],
    "trait objects": ["Using Trait Objects to Abstract over Shared Behavior", "Performing Dynamic Dispatch"],
    "macros": ["Macros", "The Difference Between Macros and Functions"], "unsafe Rust": ["Unsafe Rust", "Unsafe Superpowers", "Performing Unsafe Superpowers"],
    "Cargo": ["Hello, Cargo!", "Creating a Project with Cargo", "Building and Running a Cargo Project"], "crates.io": ["Publishing a Crate to Crates.io"],
    "editions": ["Appendix E: Editions"], "keywords": ["Keywords Currently in Use"], "comments": ["Comments"],
    "loops": ["Repeating Code with `loop`", "Looping Through a Collection with `for`"], "if expressions": ["`if` Expressions"],
    "Drop": ["Running Code on Cleanup with the `Drop` Trait"], "Deref": ["Implementing the `Deref` Trait"],
    "the Rust compiler": ["Compilation and Execution"], "a Rust program": ["The Anatomy of a Rust Program"],
    "Rust's release process": ["Choo, Choo! Release Channels and Riding the Trains"], "dangling references": ["Dangling References"],
    "data types": ["Data Types"], "Clone and Copy": ["`Clone` and `Copy` for Duplicating Values"], "moves": ["Variables and Data Interacting with Move"],
    "RAII": ["RAII"], "workspaces": ["Creating a Workspace"], "dependencies": ["Dependencies"], "a guessing game": ["Processing a Guess"],
}
ASK_TOPIC = [
    "What is {n}?", "What are {n}?", "Tell me about {n}.", "Tell me about {n}", "Explain {n}.", "Explain {n} in Rust", "How does {n} work?",
    "How do {n} work?", "What is {n} in Rust?", "what are {n} in rust", "Write a few paragraphs about {n}.", "Write about {n}",
    "Can you explain {n} to me?", "How do I use {n}?", "Teach me {n}.", "Why does Rust have {n}?", "{n}", "Give me a long explanation of {n}.",
    "explain {n} like I am a beginner", "I don't understand {n}.", "Write an essay about {n}.",
]
SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant that knows Rust.", "Answer the user's questions about Rust.",
          "You are a concise assistant.", "You are TokenFlow's demo model."]
MORE = ["Tell me more.", "tell me more", "Go on.", "Continue.", "What else?", "And then?", "More, please.", "Can you say more about that?"]
