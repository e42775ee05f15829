"""Made-up dataset trees and the measurements that run on them."""
